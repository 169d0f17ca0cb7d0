// Command embed proves that the plugin can be built into a CoreDNS that knows
// nothing of it: it takes the module source of the CoreDNS version in go.mod,
// adds the one plugin.cfg line that the README documents, generates, builds,
// and runs black-box tests against that binary.
//
// It works in a temporary directory and writes nothing to the checkout. With an
// empty module cache it downloads CoreDNS's dependencies, which are many.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// The bounds of a run. On a fresh machine with two cores CoreDNS and all of its
// dependencies are downloaded and built, which takes several minutes.
const (
	buildTime = 25 * time.Minute
	testTime  = 3 * time.Minute
)

func main() {
	keep := flag.Bool("keep", false, "keep the temporary directory with the source, the binary and the logs")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	// Linux ends a child together with the thread that started it (see
	// attributes): this goroutine starts them, and keeps the main thread.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r := &report{out: os.Stdout}
	run(ctx, r, *keep)
	stop()
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}

// run does everything and leaves nothing behind, unless it is asked to.
func run(ctx context.Context, r *report, keep bool) {
	dir, err := os.MkdirTemp("", "puppetsrv-embed-")
	if err != nil {
		r.fail("temporary directory", err)
		return
	}
	if keep {
		defer fmt.Fprintf(r.out, "kept %s\n", dir)
	} else {
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				r.fail("removing the temporary directory", err)
			}
		}()
	}

	building, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	binary := build(building, r, dir)
	if binary == "" {
		return
	}
	testing, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	test(testing, r, dir, binary)
}

// report counts checks and prints one line for each.
type report struct {
	out            io.Writer
	passed, failed int
}

// check reports name as passed or failed, and whether it passed.
func (r *report) check(name string, err error) bool {
	if err != nil {
		r.fail(name, err)
		return false
	}
	r.passed++
	fmt.Fprintf(r.out, "ok   %s\n", name)
	return true
}

func (r *report) fail(name string, err error) {
	r.failed++
	fmt.Fprintf(r.out, "FAIL %s: %v\n", name, err)
}
