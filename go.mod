module github.com/revcast/revcast

go 1.26.0

require (
	github.com/bits-and-blooms/bloom/v3 v3.7.1
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3
)

require github.com/bits-and-blooms/bitset v1.24.2 // indirect
