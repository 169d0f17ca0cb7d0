package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// markVariable is in the environment of every node, master and member and says whose
// they are: "PID DIR" of the playground. It serves to name the holder of a
// port.
const markVariable = "PUPPETSRV_PLAYGROUND"

// process is one running node, master or member. The goroutine that waits for it is
// the only writer of err, before it closes exited.
type process struct {
	name   string
	cmd    *exec.Cmd
	start  string
	exited chan struct{}
	err    error
}

// startProcess starts a command with its output appended to its log. It must
// be called on a goroutine that is locked to its thread and lives as long as
// the process should: Linux ends the process when that *thread* ends.
func startProcess(dir, name string, command ...string) (*process, error) {
	log := logPath(dir, name)
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	p := &process{name: name, exited: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", markVariable, os.Getpid(), dir))
	p.cmd.SysProcAttr = attributes()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.start, _ = startOf(p.pid()) // without it a left-over is never signalled, no more
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait reaps the process.
func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// terminate asks the process to end. It may be stopped (SIGSTOP is a thing to
// try on a master), and would not hear.
func (p *process) terminate() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which is as good
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// killed is the name of the signal with which somebody ended it, or empty if it
// ended by itself. Only once it has exited.
func (p *process) killed() string {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return ""
	}
	switch s := status.Signal(); s {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP:
		return unix.SignalName(s)
	}
	return ""
}

// ended says how it ended. Only once it has exited.
func (p *process) ended() string {
	if p.err != nil {
		return p.err.Error()
	}
	return "exit status 0"
}

// logTail is the end of a log, indented, for a message about its process.
func logTail(dir, name string) string {
	const maxBytes, maxLines = 16 << 10, 15
	b, err := os.ReadFile(logPath(dir, name))
	if err != nil {
		return "    (" + err.Error() + ")"
	}
	b = b[max(0, len(b)-maxBytes):]
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "    (its log is empty)"
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-maxLines):]
	return "    " + strings.Join(lines, "\n    ")
}
