package role

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Hook is a service that commands open and close: a dashboard, a cron job, a report
// processor. All commands have to do no harm when they run twice.
type Hook struct {
	Name    string // letters, digits, dots, dashes and underscores
	Open    Command
	Close   Command
	Standby Command // runs after Close on a host that is to follow the camaster; it may be empty
	// Check exits with 0 if the service is open, with anything else if it is not, as
	// `systemctl is-active`. Empty: it is as the last command that succeeded in this boot
	// of the host left it.
	Check   Command
	Timeout time.Duration // of each command; 0: 30 s
}

type hook struct {
	Hook
	disk Disk
	boot string

	mu   sync.Mutex
	last State // that a command left; Unknown while one runs, and before the first
}

type hookRecord struct {
	State State  `json:"state"`
	Boot  string `json:"boot"`
}

// NewHook makes a service of h. disk remembers, in a file of h's name, which command
// succeeded last; boot is the host's BootID.
func NewHook(h Hook, disk Disk, boot string) (Service, error) {
	switch {
	case h.Name == "" || len(h.Name) > 64 || strings.ContainsFunc(h.Name, func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z')
	}):
		return nil, fmt.Errorf("hook %.100q: the name is 1 to 64 letters, digits, dots, dashes and underscores", h.Name)
	case len(h.Open) == 0 || len(h.Close) == 0:
		return nil, fmt.Errorf("hook %s: it needs a command for open and one for close", h.Name)
	}
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second
	}
	k := &hook{Hook: h, disk: disk, boot: boot, last: Unknown}
	data, err := disk.Read(k.file())
	var r hookRecord
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("hook %s: reading how it was left: %w", h.Name, err)
	// A damaged file is no loss: what is not known is closed, or opened, once more.
	case json.Unmarshal(data, &r) == nil && r.Boot == boot && boot != "":
		k.last = r.State
	}
	return k, nil
}

func (h *hook) file() string { return "hook-" + h.Hook.Name + ".json" }

// Name is Hook.Name.
func (h *hook) Name() string { return h.Hook.Name }

// Stateless says that what a hook has is not ours to lose.
func (h *hook) Stateless() {}

// Observe runs Check.
func (h *hook) Observe(ctx context.Context) Observation {
	last := h.left()
	if len(h.Check) == 0 {
		if last == Unknown {
			return Observation{State: Unknown, Detail: "no command has succeeded in this boot of the host"}
		}
		return Observation{State: last, Detail: "as the last command left it"}
	}
	output, err := h.Check.Run(ctx)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Observation{State: Open, Detail: lastLine(output)}
	case ctx.Err() == nil && errors.As(err, &exit) && exit.Exited():
		state := Closed
		if last == Standby {
			state = Standby
		}
		return Observation{State: state, Detail: fmt.Sprintf("check: exit status %d", exit.ExitCode())}
	}
	return Observation{State: Unknown, Detail: err.Error()}
}

// Plan is one command, or Close and then Standby.
func (h *hook) Plan(o Observation, to State) ([]Step, error) {
	shut := h.step("close", h.Close, Closed)
	switch {
	case o.State == to:
		return nil, nil
	case to == Open:
		return []Step{h.step("open", h.Open, Open)}, nil
	case to == Standby && len(h.Standby) > 0:
		stand := h.step("standby", h.Standby, Standby)
		if o.State == Closed {
			return []Step{stand}, nil
		}
		return []Step{shut, stand}, nil
	case o.State == Closed || o.State == Standby:
		return nil, nil
	}
	return []Step{shut}, nil
}

func (h *hook) step(name string, c Command, to State) Step {
	return Step{Name: name, Detail: c.String(), Timeout: h.Timeout, Run: func(ctx context.Context) (string, error) {
		// Killed in the middle, it is as nobody knows.
		if err := h.leave(Unknown); err != nil && to == Open {
			return "", err
		}
		output, err := c.Run(ctx)
		if err != nil {
			return "", err
		}
		if err := h.leave(to); err != nil {
			return "", err
		}
		return lastLine(output), nil
	}}
}

func (h *hook) left() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// leave remembers how a command leaves the service.
func (h *hook) leave(s State) error {
	h.mu.Lock()
	h.last = s
	h.mu.Unlock()
	data, err := json.Marshal(hookRecord{s, h.boot})
	if err == nil {
		err = h.disk.Write(h.file(), data)
	}
	if err != nil && len(h.Check) == 0 {
		return fmt.Errorf("remembering that it is %s: %w", s, err)
	}
	return nil
}
