//go:build linux

package netns_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// program is a process with a log.
type program struct {
	t      *testing.T
	name   string
	log    string // path
	cmd    *exec.Cmd
	exited chan struct{}
}

// run starts a program, which ends with the test. Its log is added to that of the
// programs of this name before it.
func (s *site) run(name string, cmd *exec.Cmd) *program {
	s.t.Helper()
	p := &program{t: s.t, name: name, log: s.path(name + ".log"), cmd: cmd, exited: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.Env == nil {
		cmd.Env = environ()
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", name, err)
	}
	s.programs[name] = p
	go func() {
		_ = cmd.Wait() // how it ended is of no interest: it is asked to
		close(p.exited)
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", name, p.logged())
		}
	})
	return p
}

// environ is this process's without anything for puppetsrvctl.
func environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PUPPETSRV_") {
			env = append(env, v)
		}
	}
	return env
}

// end sends a signal and waits for the end.
func (p *program) end(how syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(how); err != nil {
		p.t.Fatalf("ending %s: %v", p.name, err)
	}
	<-p.exited
}

func (p *program) logged() string {
	p.t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(log)
}

// says waits for a line of the log with all of these words.
func (p *program) says(words ...string) {
	p.t.Helper()
	eventually(p.t, p.name+" says "+strings.Join(words, " ... "), func() bool {
		for line := range strings.Lines(p.logged()) {
			if containsAll(line, words) {
				return true
			}
		}
		select {
		case <-p.exited:
			p.t.Fatalf("%s has ended and did not say %q", p.name, words)
		default:
		}
		return false
	})
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
