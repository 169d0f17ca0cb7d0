// Command puppetsrvctl shows what the nodes of a puppetsrv cluster believe, and
// moves the camaster. It is a client of the API and nothing more: whatever it does
// can be done with curl.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Reset() // a second one ends the process at once
		cancel(&interrupted{s.(syscall.Signal)})
	}()
	os.Exit(run(ctx, os.Args[1:]))
}
