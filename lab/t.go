//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// T is one scenario while it runs. As in package testing, Fatalf ends the goroutine of the
// scenario, and nothing else may call it.
type T struct {
	*stack.Stack
	ctx context.Context

	mu       sync.Mutex
	rows     []row
	failed   bool
	last     time.Time // end of the row before
	cleanups []func()
}

// row is a line of the table.
type row struct {
	what, expected, seen string
	ok                   bool
	took                 time.Duration
}

// Context ends with the scenario's time, or by Ctrl-C.
func (t *T) Context() context.Context { return t.ctx }

// Check adds a line to the table: what was expected, what was seen, and whether that is
// the same. Its time is that since the line before.
func (t *T) Check(ok bool, what, expected, seen string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	r := row{what, expected, fmt.Sprintf(seen, args...), ok, now.Sub(t.last)}
	t.last = now
	t.rows = append(t.rows, r)
	t.failed = t.failed || !ok
	fmt.Printf("    %s\n", r)
}

func (r row) String() string {
	mark := "ok  "
	if !r.ok {
		mark = "MISS"
	}
	return fmt.Sprintf("%s %s: expected %s; seen %s (%.1f s)", mark, r.what, r.expected, r.seen, r.took.Seconds())
}

// Logf prints a line that is not of the table.
func (t *T) Logf(format string, args ...any) {
	fmt.Printf("    %s\n", strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n", "\n    "))
}

// Errorf fails the scenario, which goes on.
func (t *T) Errorf(format string, args ...any) {
	t.mu.Lock()
	t.failed = true
	t.mu.Unlock()
	t.Logf("FAILED: "+format, args...)
}

// Fatalf fails the scenario and ends it.
func (t *T) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Must ends the scenario if there is an error.
func (t *T) Must(err error) {
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Cleanup is called when the scenario ends, the last one first.
func (t *T) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Helper, Skipf and TempDir are for netns.T. Nothing is skipped here.
func (t *T) Helper() {}

// Skipf fails: what the lab needs is no choice.
func (t *T) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// TempDir is a directory that ends with the scenario.
func (t *T) TempDir() string {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run calls f with t, in a goroutine of its own, and then the cleanups. It reports whether
// nothing failed.
func (t *T) run(f func(*T)) bool {
	t.last = time.Now()
	protected := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
	}
	protected(func() { f(t) })
	if t.ctx.Err() != nil {
		t.Errorf("it was ended: %v", context.Cause(t.ctx))
	}
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		protected(last)
	}
	return !t.failed
}
