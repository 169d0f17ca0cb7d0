// Command puppetsrv-member runs on each Puppet master: it joins the cluster, says what
// only the host can know, and has the host become, be, or stop being the camaster, as
// the register says. Its other commands ask the one that runs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
