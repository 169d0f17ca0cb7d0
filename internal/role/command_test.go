package role_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

func sh(script string) role.Command { return role.Command{"sh", "-c", script} }

func TestCommand(t *testing.T) {
	out, err := sh("echo one; echo two >&2; pwd").Run(t.Context())
	if err != nil || !strings.HasPrefix(out, "one\ntwo\n/") {
		t.Errorf("%q, %v", out, err)
	}
	out, err = sh("echo one; echo 'no such host' >&2; echo; exit 3").Run(t.Context())
	if out != "one\nno such host\n\n" || err == nil || err.Error() != `running sh -c 'echo one; echo '\''no such host'\'' >&2; echo; exit 3': exit status 3: no such host` {
		t.Errorf("%q, %v", out, err)
	}
	for _, c := range []role.Command{nil, {""}, {"/nonexistent/program"}} {
		if _, err := c.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "running ") {
			t.Errorf("%q: %v", c, err)
		}
	}
	out, err = role.Process{Command: role.Command{"sh", "-c", `cat; echo "$A"; pwd`}, Dir: "/", Env: []string{"A=b"}, Input: "in "}.Run(t.Context())
	if err != nil || out != "in b\n/\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestCommandOutputIsBounded(t *testing.T) {
	out, err := sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; head -c 100000 /dev/zero; echo end").Run(t.Context())
	if err != nil || len(out) > role.MaxOutput || !strings.HasSuffix(out, "end\n") || !strings.HasPrefix(out, "...") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	out, err = sh("head -c 4096 /dev/zero | tr '\\0' x").Run(t.Context())
	if err != nil || out != strings.Repeat("x", role.MaxOutput) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	out, err = sh(`printf 'a\377b'`).Run(t.Context())
	if err != nil || out != "a\uFFFDb" {
		t.Errorf("%q, %v", out, err)
	}
}

// What a command started ends with it when its time is over.
func TestCommandIsKilledWithItsChildren(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	over := errors.New("the camaster has moved on")
	go func() {
		for i := 0; i < 1000; i++ { // until both have said who they are
			if data, err := os.ReadFile(pidfile); err == nil && strings.Count(string(data), "\n") == 2 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel(over)
	}()
	began := time.Now()
	_, err := sh("echo waiting; trap '' TERM; echo $$ >> " + pidfile + "; sh -c 'echo $$ >> " + pidfile + "; sleep 600' & wait").Run(ctx)
	if !errors.Is(err, over) || !strings.HasSuffix(err.Error(), "killed: the camaster has moved on: waiting") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	data, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		if !ends(pid) {
			t.Errorf("process %d lives on", pid)
		}
	}
}

// ends reports whether a process is gone, or a zombie that waits for its parent, within
// ten seconds.
func ends(pid int) bool {
	for range 1000 {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil && syscall.Kill(pid, 0) != nil || strings.Contains(string(stat), ") Z ") {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// A daemon that a command leaves behind does not hold it up, and lives on.
func TestCommandLeavesADaemon(t *testing.T) {
	out, err := sh("sleep 60 & echo $!").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the daemon is gone: %v", err)
	}
}

func TestCommandIsNotStartedTooLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "file")
	if _, err := (role.Command{"touch", file}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it ran")
	}
}

func TestProcessRunsAsAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can run a command as somebody else")
	}
	out, err := role.Process{Command: role.Command{"id", "-u"}, User: &syscall.Credential{Uid: 65534, Gid: 65534}}.Run(t.Context())
	if err != nil || out != "65534\n" {
		t.Errorf("%q, %v", out, err)
	}
}
