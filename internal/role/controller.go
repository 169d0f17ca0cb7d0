package role

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// Logger is where a controller says what it does.
type Logger interface {
	Infof(format string, v ...any)
	Warningf(format string, v ...any)
	Errorf(format string, v ...any)
}

// Disk keeps small files that survive a power cut, as store.Dir does.
type Disk interface {
	Read(name string) ([]byte, error) // fs.ErrNotExist where there is none
	Write(name string, data []byte) error
}

// Config is what a controller is made of.
type Config struct {
	Host     string    // this host, with a final dot
	Services []Service // in the order of opening; none two with one name
	Disk     Disk
	BootID   string // of the host's kernel: another one after each reboot; see BootID
	Log      Logger
	// Changed says that Status is no longer what it was. It must not block. It may be nil.
	Changed func()
	// Clear asks whether old, the former camaster, has closed its services and everything
	// it wrote is here: "" if so, else what is waited for. An error says that it cannot
	// be asked, and nothing waits for it then. It is asked before the first step of
	// opening under a version, has three seconds for each answer, and is asked again for
	// at most ClearWithin. nil: there is nobody to ask.
	Clear       func(ctx context.Context, old string) (wait string, err error)
	ClearWithin time.Duration // 0: 30 s
	// Grace is how long a host without any record of its role waits for the first word of
	// a node before it closes what it finds open; six times as long if it is named as
	// camaster and has yet to hear the other nodes. Units that wait for the member start
	// nothing meanwhile. 0: 5 s.
	Grace time.Duration
	// Interval is the time between two looks at the services while nothing changes; 0: a
	// second.
	Interval time.Duration
}

// Controller brings the services of a host to where they belong. Its methods are safe
// for concurrent use.
type Controller struct {
	cfg      Config
	began    time.Time
	services []*service
	wake     chan struct{}
	using    chan struct{} // held by whoever calls services

	mu      sync.Mutex
	known   Knowledge
	record  Record // the disk has the same, or is behind
	status  evidence.Role
	rejoin  string   // asked for and not yet looked at
	recheck bool     // asked for
	running *running // nil between steps

	// What follows belongs to Run.
	behind  bool   // the disk is
	trouble string // why
	saving  <-chan struct{}
	looked  bool // at all services, once
	current Decision
	change  change
	waits   string // what opening waits for
	unclean string // why what was closed for the handover may not all be elsewhere
	clear   clearance
}

// service is one with what Run knows of it.
type service struct {
	Service
	stateless bool
	hung      <-chan struct{} // closed when a call returns that was given up; its lock is using

	seen     Observation
	sure     bool // no step was run since it was last really seen, at seenAt
	seenAt   time.Time
	presumed bool   // seen is what it was at seenAt
	moving   bool   // it has steps to do
	problem  string // why it is not where it belongs
	failures int    // in a row
	again    time.Time
}

// running is the step that is under way.
type running struct {
	to     State
	cancel context.CancelCauseFunc
}

// change is one from a decision to the next.
type change struct {
	version register.Version
	to      State
	listed  bool // its steps are those of the record
	reached bool // once, everything was where it belongs
	follows bool // every service is a standby
}

// New reads the record. A damaged one is no error: the controller then keeps the role
// closed, writes nothing over it, and Status says so.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Host == "":
		return nil, errors.New("role: no host")
	case cfg.Disk == nil || cfg.Log == nil:
		return nil, errors.New("role: a disk and a log are needed")
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.ClearWithin == 0 {
		cfg.ClearWithin = 30 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	c := &Controller{cfg: cfg, began: time.Now(), wake: make(chan struct{}, 1), using: make(chan struct{}, 1)}
	names := make(map[string]bool)
	for _, s := range cfg.Services {
		if names[s.Name()] {
			return nil, fmt.Errorf("role: two services are named %q: each has a name of its own", s.Name())
		}
		names[s.Name()] = true
		_, stateless := s.(Stateless)
		c.services = append(c.services, &service{Service: s, stateless: stateless, seen: Observation{State: Unknown}})
	}
	record, err := ReadRecord(cfg.Disk)
	if err != nil {
		cfg.Log.Errorf("%v", err)
	}
	for i := range record.Steps {
		if s := &record.Steps[i]; s.State == stepRunning {
			s.State, s.Detail = stepFailed, "the member ended in the middle of it"
		}
	}
	c.record = record
	c.current = Decide(cfg.Host, cfg.BootID, c.known, record)
	c.publish()
	return c, nil
}

// Know gives it the newest knowledge. It does not block. An older version than it knows
// is not taken back.
func (c *Controller) Know(k Knowledge) {
	k.Waits = slices.Clone(k.Waits)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.Version.Compare(c.known.Version) < 0 {
		k.Version, k.Parent, k.Value = c.known.Version, c.known.Parent, c.known.Value
	}
	if reflect.DeepEqual(k, c.known) {
		return
	}
	c.known = k
	if r := c.running; r != nil && r.to != Closed {
		if d := c.decide(); d.To != r.to {
			r.cancel(fmt.Errorf("the camaster is %s now, under %s", name(d.Value.Host), d.Version))
		}
	}
	c.poke()
}

// Rejoin makes a standby of a former camaster, which loses what it wrote that the
// camaster does not have. id is the request's, 1 to 64 bytes; Status().Rejoin has what
// becomes of it. The same id again is the same request.
func (c *Controller) Rejoin(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("rejoin: an id of %d bytes: 1 to 64", len(id))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record.damaged != nil {
		return c.record.damaged
	}
	c.rejoin = id
	c.poke()
	return nil
}

// Recheck looks at all services again at once, and tries again what failed.
func (c *Controller) Recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recheck = true
	c.poke()
}

// Status is how the role stands. What it points to must not be changed.
func (c *Controller) Status() evidence.Role {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Decision is where the role belongs, by what is known now; Status is how far it is.
func (c *Controller) Decision() Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decide()
}

// Run does the work until ctx ends. Services stay as they are then.
func (c *Controller) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.wake:
			timer.Reset(c.pass(ctx))
		case <-timer.C:
			timer.Reset(c.pass(ctx))
		}
	}
}

// poke makes Run look again.
func (c *Controller) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// namedGrace is how many times longer a host waits that is named as camaster: nodes that
// start at the same time find each other within seconds.
const namedGrace = 6

// decide is the decision as of now. The caller has the lock.
func (c *Controller) decide() Decision {
	d := Decide(c.cfg.Host, c.cfg.BootID, c.known, c.record)
	// A member that is new on a host that works must not stop it for the moment that it
	// takes to hear who is camaster, or, once it is named, whether that is the newest.
	grace := c.cfg.Grace
	if d.Value.Host == c.cfg.Host {
		grace *= namedGrace
	}
	if d.State == evidence.Waiting && (d.Version.IsZero() || d.Value.Host == c.cfg.Host) && c.record.Data == Unsure && c.record.damaged == nil && time.Since(c.began) < grace {
		d.Untouched = true
	}
	return d
}

// stale reports whether what is known has moved on from d.
func (c *Controller) stale(d Decision) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.decide()
	return now.Version != d.Version || now.To != d.To || now.State != d.State || now.Untouched != d.Untouched || now.Hold != d.Hold
}

// pass goes from observation to where the services belong, once, as far as it can get,
// and says after what time to look again.
func (c *Controller) pass(ctx context.Context) time.Duration {
	c.mu.Lock()
	if c.recheck {
		c.recheck = false
		c.retry()
	}
	if c.record.damaged == nil && c.record.see(c.cfg.Host, c.known) {
		c.behind = true
	}
	d := c.decide()
	asked := c.rejoin
	c.rejoin = ""
	c.mu.Unlock()

	c.abandon(d)
	if asked != "" {
		d = c.answer(asked, d)
	}
	if d.Version != c.change.version || d.To != c.change.to {
		c.change = change{version: d.Version, to: d.To}
		c.waits, c.unclean = "", ""
		c.retry()
	}
	c.current = d
	// Closing does not wait for a disk that refuses: the version is seen in any case.
	if err := c.save(); err != nil && d.To == Open {
		for _, s := range c.services {
			c.observe(ctx, s, d.To)
		}
		c.looked = true
		c.publish()
		return diskAgain
	}
	var wait time.Duration
	switch {
	case d.Untouched:
		for _, s := range c.services {
			c.observe(ctx, s, d.To)
		}
		wait = min(c.cfg.Interval, openAgain)
	case d.To == Open:
		wait = c.open(ctx, d)
	default:
		wait = c.shut(ctx, d)
	}
	if c.save() != nil {
		wait = min(wait, diskAgain)
	}
	if ctx.Err() == nil {
		c.looked = true
		c.publish()
	}
	return wait
}

// retry forgets how long to wait before failures are tried again.
func (c *Controller) retry() {
	for _, s := range c.services {
		s.failures, s.again = 0, time.Time{}
	}
}

// due is how long it is to the next thing to be tried again, at most most.
func (c *Controller) due(most time.Duration) time.Duration {
	for _, s := range c.services {
		if s.problem != "" {
			most = min(most, max(0, time.Until(s.again)))
		}
	}
	return most
}
