-- The action "revcast" asks the sidecar's /check about a request. It sets the
-- variable txn.revcast_allowed and the identity headers where the answer is 200,
-- answers 400, 401 and 403 as /check does, and leaves anything else to the rule that
-- denies what has no such variable.

local check = "http://127.0.0.1:8711/check"
local identity = { -- as in the sidecar's configuration
  "x-auth-sub",
  "x-auth-scope",
}
local needed = { -- the token, and what makes a preflight or keeps a request from being one
  "authorization", "origin", "access-control-request-method",
  "cookie", "upgrade", "x-http-method", "x-http-method-override", "x-method-override",
}

-- Of a request whose token nobody looked at only Basic is passed on, for those who ask
-- the API for one.
local function only_basic(values)
  return values and #values == 0 and values[0]:lower():find("^basic +[%w._~+/=-]+$")
end

core.register_action("revcast", { "http-req" }, function(txn)
  local given, asked = txn.http:req_get_headers(), {}
  for _, name in ipairs(needed) do
    asked[name] = given[name] -- all of them, where there are several
  end
  asked["x-forwarded-uri"] = { txn.f:pathq() }
  asked["x-forwarded-method"] = { txn.f:method() }

  -- HAProxy asks up to four times, so that a client waits four seconds at most.
  local answer = core.httpclient():get { url = check, headers = asked, timeout = 1000 }
  if not answer then return end

  if answer.status == 200 then
    for _, name in ipairs(identity) do
      txn.http:req_del_header(name)
      for _, value in pairs(answer.headers[name] or {}) do
        txn.http:req_add_header(name, value)
      end
    end
    if answer.headers["x-revcast-public"] and not only_basic(given["authorization"]) then
      txn.http:req_del_header("authorization")
    end
    txn:set_var("txn.revcast_allowed", true)
  elseif answer.status == 400 or answer.status == 401 or answer.status == 403 then
    local reply = txn:reply { status = answer.status, body = answer.body }
    for _, name in ipairs { "www-authenticate", "content-type", "cache-control" } do
      for _, value in pairs(answer.headers[name] or {}) do
        reply:add_header(name, value)
      end
    end
    txn:done(reply)
  end
end)
