package role

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxOutput is how much of a command's output is kept, in bytes: the end of it.
const MaxOutput = 4096

// outputWait is for how long the output of a command is read on after its end. What
// still has it open then is a daemon that the command left behind.
const outputWait = 500 * time.Millisecond

// Command is a program and its arguments. No shell reads it.
type Command []string

// Run runs c until it ends or ctx does: then it is killed, with all of its children
// that stayed in its process group. output is the end of what it wrote to both of
// its outputs, at most MaxOutput bytes, also with an error; the error names the
// command, says how it ended, and has the last line of its output. A daemon that it
// leaves behind goes on, but loses its output: redirect that.
func (c Command) Run(ctx context.Context) (output string, err error) {
	return Process{Command: c}.Run(ctx)
}

// String is c as one would type it.
func (c Command) String() string {
	words := make([]string, len(c))
	for i, w := range c {
		words[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("%+,-./:=@_^", r) && (r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z')
		}) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// Process is a Command with its surroundings.
type Process struct {
	Command Command
	Dir     string              // where it runs; "": where this process does
	Env     []string            // instead of this process's, if it is not nil
	User    *syscall.Credential // as whom it runs; nil: as this process
	Input   string              // what it reads
}

// Run is Command.Run.
func (p Process) Run(ctx context.Context) (output string, err error) {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return "", errors.New("running a command: it is empty; give the program and its arguments")
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("running %s: %w", p.Command, context.Cause(ctx))
	}
	cmd := exec.CommandContext(ctx, p.Command[0], p.Command[1:]...)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir, cmd.Env = p.Dir, p.Env
	if p.Input != "" {
		cmd.Stdin = strings.NewReader(p.Input)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.User}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputWait
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well
	}
	output = out.String()
	if err == nil {
		return output, nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("killed: %w", context.Cause(ctx))
	}
	if line := lastLine(output); line != "" {
		return output, fmt.Errorf("running %s: %w: %s", p.Command, err, line)
	}
	return output, fmt.Errorf("running %s: %w", p.Command, err)
}

// lastLine is the last one that is not blank, at most 300 bytes of it.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	s = strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
	return strings.ToValidUTF8(s[:min(len(s), 300)], "")
}

// tail keeps the last MaxOutput bytes of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-MaxOutput):]...)
	if over := len(t.data) - MaxOutput; over > 0 || len(p) > MaxOutput {
		t.data, t.cut = append(t.data[:0], t.data[max(0, over):]...), true
	}
	return len(p), nil
}

// String is what was kept, as text; it begins with "..." if something was left out.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.ToValidUTF8(string(t.data), "\uFFFD")
	if t.cut {
		s = "..." + s[min(3, len(s)):]
	}
	return s
}
