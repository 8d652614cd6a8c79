// Command serve runs a Kubernetes API server without a cluster, to follow docs/operations.md
// by hand: go -C test/apiserver run ./serve
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/revcast/revcast/test/apiserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "revcast-apiserver-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Println("building, which takes minutes the first time")
	s, err := apiserver.Start(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Stop()
	if err := apiserver.Define(ctx, s, dir); err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\n", s.Kubeconfig)
	<-ctx.Done()
	return nil
}
