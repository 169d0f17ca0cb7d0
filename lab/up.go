//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// held is what is known of a stack that was left running.
type held struct {
	PID   int // the first process of its namespaces
	Stack stack.Saved
}

// Files beside a stack's directory.
func statePath(src string) string { return rundir(src) + ".json" }
func logPath(src string) string   { return rundir(src) + ".log" }

// load is nil if no stack runs.
func load(src string) (*held, error) {
	data, err := os.ReadFile(statePath(src))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := new(held)
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("%s: %w: remove it", statePath(src), err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.PID))
	if err != nil || !bytes.Contains(line, []byte("\x00hold")) {
		return nil, nil // it has died
	}
	return h, nil
}

// inside is a command in the namespaces of a stack that runs.
func (h *held) inside(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(h.PID), "--mount", "--pid", "--uts", "--"}, args...)
}

// upCommand starts a stack in the background.
type upCommand struct{}

func (upCommand) Run() error {
	src, err := prepare()
	if err != nil {
		return err
	}
	if h, err := load(src); err != nil || h != nil {
		if err == nil {
			err = fmt.Errorf("a stack runs already: `make lab-down` ends it")
		}
		return err
	}
	_ = os.Remove(statePath(src)) // that of one that has died
	if err := os.MkdirAll(filepath.Dir(logPath(src)), 0o755); err != nil {
		return err
	}
	log, err := os.Create(logPath(src))
	if err != nil {
		return err
	}
	defer log.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "hold")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for told := 0; ; time.Sleep(100 * time.Millisecond) {
		text, err := os.ReadFile(logPath(src))
		if err != nil {
			return err
		}
		if n := bytes.LastIndexByte(text, '\n') + 1; n > told {
			fmt.Print(string(text[told:n]))
			told = n
		}
		if h, err := load(src); err == nil && h != nil {
			fmt.Print(whatToTry)
			return cmd.Process.Release()
		}
		select {
		case <-ended:
			return fmt.Errorf("the stack has not started; its logs are in %s", rundir(src))
		default:
		}
	}
}

const whatToTry = `
The stack runs. Hosts: ns1, m1, m2, a1 in datacenter1; ns2, m3, m4, a2 in datacenter2; ns3, a secondary.

  bin/lab enter ns1                       a shell on a host
  bin/lab enter ns1 puppetsrvctl status
  bin/lab enter ns1 dig +short SRV _x-puppet._tcp.datacenter1.example.net @10.1.0.1
  bin/lab enter a1 puppet agent --test
  bin/lab enter ns2 puppetsrvctl switchover --to m3.example.net --reason trial
  bin/lab enter m2 /etc/lab/service stop puppetserver
  make lab SCENARIO=local-first           a scenario on this stack
  make lab-down
`

// holdCommand is the process that holds a stack for upCommand.
type holdCommand struct{}

func (holdCommand) Run() error {
	src, err := source()
	if err != nil {
		return err
	}
	return isolated(func(ctx context.Context) error {
		root := &T{ctx: ctx}
		if !root.run(func(t *T) {
			t.Must(save(src, start(t, src)))
			t.Cleanup(func() { os.Remove(statePath(src)) })
			<-ctx.Done()
			t.ctx = context.WithoutCancel(ctx) // it was asked to end
		}) {
			return exitError{1}
		}
		return nil
	})
}

// save tells the other commands where the stack is.
func save(src string, s *stack.Stack) error {
	pid, err := strconv.Atoi(os.Getenv(outsideVariable))
	if err != nil {
		return err
	}
	data, err := json.Marshal(held{pid, s.Save()})
	if err != nil {
		return err
	}
	next := statePath(src) + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, statePath(src))
}

// enterCommand runs something on a host.
type enterCommand struct {
	Host    string   `arg:"" help:"The host's first label, as m1."`
	Command []string `arg:"" optional:"" passthrough:"" help:"Default: a shell."`
}

func (c enterCommand) Run() error {
	src, err := source()
	if err != nil {
		return err
	}
	h, err := load(src)
	if err == nil && h == nil {
		err = fmt.Errorf("no stack runs: `make lab-up` starts one")
	}
	if err != nil {
		return err
	}
	short := strings.TrimSuffix(c.Host, "."+stack.Domain)
	i := slices.IndexFunc(h.Stack.Net.Hosts, func(n netns.SavedHost) bool { return n.Name == short+"."+stack.Domain })
	if i < 0 {
		return fmt.Errorf("there is no host %s", c.Host)
	}
	if len(c.Command) == 0 {
		c.Command = []string{"/bin/bash", "--norc"}
	}
	var t T
	args := h.inside(append([]string{"unshare", "--uts"}, netns.Resume(&t, h.Stack.Net).Hosts()[i].Command(c.Command[0], c.Command[1:]...).Args...)...)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	env := append(os.Environ(), "PS1="+short+"# ", "PATH="+filepath.Join(src, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return syscall.Exec(path, args, env)
}

// downCommand ends the stack that upCommand has started.
type downCommand struct{}

func (downCommand) Run() error {
	src, err := source()
	if err != nil {
		return err
	}
	h, err := load(src)
	if err != nil {
		return err
	}
	if h == nil {
		fmt.Println("no stack runs")
		return nil
	}
	if err := syscall.Kill(h.PID, syscall.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(h.PID, 0) == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the stack does not end")
		}
	}
	fmt.Printf("the stack has ended; its logs are in %s\n", logs(src))
	return nil
}
