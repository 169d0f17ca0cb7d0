package role

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/register"
)

// reloadFile is its name on a Disk.
const reloadFile = "reload.json"

const (
	reloadFirst = time.Second // between two tries
	reloadLast  = time.Minute
)

// Reload runs commands once the camaster has moved, on every master: for each version
// that hands nothing over, once. Masters need it whose setup keeps addresses longer than
// DNS does. A command that was killed or failed runs again, and so do those before it.
// Its methods are safe for concurrent use.
type Reload struct {
	commands []Command
	timeout  time.Duration
	disk     Disk
	log      Logger
	wake     chan struct{}

	mu      sync.Mutex
	newest  register.Version
	done    register.Version
	problem string
	cancel  context.CancelFunc // of what runs
}

type reloadRecord struct {
	Version register.Version `json:"version"` // for which all commands have run
}

// NewReload makes one. timeout is of each command; 0: 30 s. disk remembers for which
// version the commands ran. What cannot be read there was never run.
func NewReload(commands []Command, timeout time.Duration, disk Disk, log Logger) *Reload {
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	r := &Reload{commands: commands, timeout: timeout, disk: disk, log: log, wake: make(chan struct{}, 1)}
	data, err := disk.Read(reloadFile)
	var rec reloadRecord
	if err == nil {
		err = json.Unmarshal(data, &rec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warningf("reading for which camaster the masters were reloaded: %v: it is done once more", err)
		rec = reloadRecord{}
	}
	r.done = rec.Version
	return r
}

// Know gives it the newest knowledge. It does not block. A newer version ends what runs
// for an older one.
func (r *Reload) Know(k Knowledge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k.Value.Host == "" || k.Value.Handover != "" || k.Version.Compare(r.newest) <= 0 || k.Version.Compare(r.done) <= 0 {
		return
	}
	r.newest = k.Version
	if r.cancel != nil {
		r.cancel()
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Problem is why the commands have not all run for the newest version; "" if they have.
func (r *Reload) Problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problem
}

// Run runs the commands when they are due, until ctx ends.
func (r *Reload) Run(ctx context.Context) {
	wait := reloadFirst
	timer := time.NewTimer(wait)
	timer.Stop()
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			wait = reloadFirst
		case <-timer.C:
			wait = min(2*wait, reloadLast)
		}
		if !r.run(ctx) {
			timer.Reset(wait)
		}
	}
}

// run runs the commands for the newest version; false if that has to be tried again.
func (r *Reload) run(ctx context.Context) bool {
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	v := r.newest
	if v.Compare(r.done) <= 0 || len(r.commands) == 0 {
		r.mu.Unlock()
		return true
	}
	r.cancel = cancel
	r.mu.Unlock()
	err := r.runAll(runCtx, v)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = nil
	switch {
	case err == nil:
		r.done, r.problem = v, ""
	case ctx.Err() != nil || v != r.newest: // somebody else goes on
	default:
		p := fmt.Sprintf("camaster %s: reloading: %v", v, err)
		if p != r.problem {
			r.log.Errorf("%s; it is tried again", p)
		}
		r.problem = p
	}
	return err == nil
}

func (r *Reload) runAll(ctx context.Context, v register.Version) error {
	for _, c := range r.commands {
		began := time.Now()
		one, cancel := context.WithTimeoutCause(ctx, r.timeout, fmt.Errorf("not done within %v", r.timeout))
		_, err := c.Run(one)
		cancel()
		if err != nil {
			return err
		}
		r.log.Infof("camaster %s: reload: %s: done in %v", v, c, time.Since(began).Round(time.Millisecond))
	}
	data, err := json.Marshal(reloadRecord{v})
	if err == nil {
		err = r.disk.Write(reloadFile, data)
	}
	if err != nil {
		return fmt.Errorf("remembering that it is done: %w", err)
	}
	return nil
}
