package main

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The section on a small scale: what it reports is of a real cluster, and right
// whatever the machine does meanwhile. How long it takes is the section's to judge.
func TestFlips(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this needs Linux: its loopback network has all of 127.0.0.0/8")
	}
	defer goleak.VerifyNone(t)
	// A child ends with the thread that started it (see attributes).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	binary := filepath.Join(dir, "puppetsrv")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/puppetsrv").CombinedOutput(); err != nil {
		t.Fatalf("building the nodes: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := &bench{ctx: ctx, dir: dir, binary: binary, report: newReport(io.Discard)}
	defer b.endAll()
	const nodes, quiet, secure, loaded = 3, 5, 2, 3
	r, err := b.measureFlips(nodes, quiet, secure, loaded)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name  string
		took  flipTimes
		count int
	}{
		{"unix", r.quiet, quiet},
		{"https", r.secure, secure},
		{"under load", r.loaded, loaded},
	} {
		f := part.took
		for what, got := range map[string]times{"API": f.api, "CNAME": f.camaster, "CA": f.ca, "disk": f.disk} {
			if len(got) != part.count {
				t.Errorf("%s: %d times of kind %s, want %d", part.name, len(got), what, part.count)
			}
		}
		if f.unacked == part.count { // a node may be slow, but not every time
			t.Errorf("%s: no flip was acknowledged by all nodes", part.name)
		}
		if len(f.each) != nodes*part.count {
			t.Errorf("%s: %d times of single nodes, want %d", part.name, len(f.each), nodes*part.count)
		}
	}
	if r.load.answered == 0 || r.load.wrong() > 0 {
		t.Errorf("the load was answered so: %+v", r.load)
	}
	if want := quiet + secure + loaded; r.ending.kept != want || r.ending.conflicts != 0 {
		t.Errorf("at the end there are %d writes and %d conflicts, want %d and none", r.ending.kept, r.ending.conflicts, want)
	}
}
