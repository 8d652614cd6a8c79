// Command authority takes revocations and tells every verifier. See its --help.
package main

import (
	"os"

	"github.com/revcast/revcast/cmd/authority/app"
)

func main() { os.Exit(app.Main(os.Args[1:])) }
