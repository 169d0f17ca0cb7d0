//go:build linux

package netns_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// Nothing is left behind, neither by a test with running programs nor in the
// namespace it is run from.
func TestNothingIsLeft(t *testing.T) {
	links := func() string {
		var all []string
		interfaces, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range interfaces {
			all = append(all, i.Name)
		}
		return strings.Join(all, " ")
	}
	before := links()
	var stubborn *exec.Cmd
	var names []string
	t.Run("of a test", func(t *testing.T) {
		n := netns.New(t)
		a := n.Host("a", "10.1.0.1")
		names = namespaces(os.Getpid())
		if len(names) != 2 || !slices.Contains(names, a.Namespace()) {
			t.Errorf("the namespaces are %v", names)
		}
		if got := links(); got != before {
			t.Errorf("links while it runs: %s, before: %s", got, before)
		}
		stubborn = a.Command("sh", "-c", `trap "" TERM INT HUP; echo ready; while :; do sleep 1; done`)
		out, err := stubborn.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := stubborn.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
	})
	if stubborn == nil {
		t.Skip("SKIPPED with its part")
	}
	if err := stubborn.Wait(); err == nil || stubborn.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process: %v, want killed", err)
	}
	for _, name := range names {
		if slices.Contains(namespaces(os.Getpid()), name) {
			t.Errorf("%s is left", name)
		}
	}
	if got := links(); got != before {
		t.Errorf("links after it: %s, before: %s", got, before)
	}
}

// namespaces are those of an owner, by its process id.
func namespaces(pid int) []string {
	paths, _ := filepath.Glob(fmt.Sprintf("/run/netns/puppetsrv-%d-*", pid))
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

// A test that fails leaves nothing, and what a killed one leaves goes at the next
// start; what a living one has stays.
func TestLeftovers(t *testing.T) {
	netns.New(t) // skips, where it must
	failing := exec.Command(os.Args[0], "-test.run=^TestRole$", "-test.v")
	failing.Env = append(os.Environ(), roleVariable+"=failing")
	out, err := failing.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "fails, having 2 namespaces") {
		t.Fatalf("the failing test: %v: %s", err, out)
	}
	if left := namespaces(failing.Process.Pid); len(left) > 0 {
		t.Errorf("a failed test leaves %v", left)
	}

	owner := exec.Command(os.Args[0], "-test.run=^TestRole$", "-test.v")
	owner.Env = append(os.Environ(), roleVariable+"=owner")
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Process.Kill() }()
	var child int
	for child == 0 {
		var line string
		if _, err := fmt.Fscanln(stdout, &line, &child); err != nil && line == "" {
			t.Fatalf("the owner says no id: %v", err)
		}
	}
	netns.New(t)
	if got := namespaces(owner.Process.Pid); len(got) != 2 {
		t.Errorf("the living owner has %v", got)
	}
	_ = owner.Process.Kill()
	_, _ = io.Copy(io.Discard, stdout)
	_ = owner.Wait()
	if got := namespaces(owner.Process.Pid); len(got) != 2 || !alive(child) {
		t.Fatalf("after the owner's death there are %v, and its child lives: %t; this test shows nothing", got, alive(child))
	}
	netns.New(t)
	if got := namespaces(owner.Process.Pid); len(got) != 0 {
		t.Errorf("the dead owner's %v are still there", got)
	}
	if alive(child) {
		t.Errorf("the dead owner's child %d still runs", child)
	}
}

// TestRole does nothing, but where TestLeftovers runs it in a process of its own.
func TestRole(t *testing.T) {
	switch os.Getenv(roleVariable) {
	case "failing":
		n := netns.New(t)
		h := n.Host("a", "10.1.0.1")
		if err := h.Command("sleep", "1000").Start(); err != nil {
			t.Fatal(err)
		}
		t.Fatalf("fails, having %d namespaces", len(namespaces(os.Getpid())))
	case "owner":
		h := netns.New(t).Host("a", "10.1.0.1")
		cmd := h.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it survives its parent
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the child sleeps", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
			return string(b) == "sleep\n"
		})
		fmt.Printf("child %d\n", cmd.Process.Pid)
		time.Sleep(patience) // it is killed before
	}
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(fields) > 0 && fields[0] != "Z"
}
