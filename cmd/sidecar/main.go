// Command sidecar refuses revoked tokens in front of an API. See its --help.
package main

import (
	"os"

	"github.com/revcast/revcast/cmd/sidecar/app"
)

func main() { os.Exit(app.Main(os.Args[1:])) }
