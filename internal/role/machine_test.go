package role_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

var errDead = errors.New("the process is dead")

// machine is a host as kills and power cuts leave it: its disk and its services. All
// that a process does to it goes through point, where the process can be killed: what
// it did before has happened, and what it does afterwards has not.
type machine struct {
	t    testing.TB
	host string

	mu    sync.Mutex
	files map[string][]byte
	svcs  []*disked // in the order of opening
	boots int
	start uint64 // of members
	diskf func(name string) error

	point  func(p *process, what string) // nil: nothing happens there
	strict bool                          // nobody but the member opens anything
	said   func(line string)             // what is logged
	// opens is called when a service opens, with the lock. by is nil when it comes up
	// with the host.
	opens func(s *disked, by *process)
	// pace is how a step or a look fares.
	pace func(p *process, what string) (time.Duration, error)
}

// disked is a service as its files say.
type disked struct {
	name      string
	stateless bool
	follows   string // the service with which it opens and closes; "" if it is its own

	state    role.State
	prepared bool // for opening
	untidy   bool // closed, but not all the way
	copied   bool // for standing by
	diverged bool // only a person can make a standby of it
	unclean  bool // it did not end well
}

func newMachine(t testing.TB, host string) *machine {
	return &machine{t: t, host: host, boots: 1, strict: true, files: make(map[string][]byte), svcs: []*disked{
		{name: "postgresql", state: role.Standby},
		{name: "puppetdb", stateless: true, follows: "postgresql"},
		{name: "ca", state: role.Standby},
		{name: "dashboard", stateless: true, state: role.Standby},
	}}
}

// bootID names this boot.
func (m *machine) bootID() string { return fmt.Sprintf("%sboot-%d", m.host, m.boots) }

// reboot leaves everything as it is on disk. What has to run to be open does not.
func (m *machine) reboot() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots++
	for _, s := range m.svcs {
		if s.name == "postgresql" && s.state != role.Closed {
			s.unclean = s.state == role.Open
			s.state = role.Closed
		}
	}
}

func (m *machine) service(name string) *disked {
	return m.svcs[slices.IndexFunc(m.svcs, func(s *disked) bool { return s.name == name })]
}

// is is the state of a service. The caller has the lock.
func (m *machine) is(s *disked) role.State {
	if s.follows != "" {
		return m.is(m.service(s.follows))
	}
	return s.state
}

// states are those of all services.
func (m *machine) states() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, s := range m.svcs {
		all = append(all, string(m.is(s)))
	}
	return fmt.Sprint(all)
}

func (m *machine) anyOpen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.svcs, func(s *disked) bool { return m.is(s) == role.Open })
}

// process is a member on the machine.
type process struct {
	m     *machine
	ctl   *role.Controller
	start uint64

	mu     sync.Mutex
	dead   bool
	cancel context.CancelFunc
	done   chan struct{}
}

func (m *machine) run(mutate ...func(p *process, cfg *role.Config)) *process {
	m.mu.Lock()
	m.start++
	p := &process{m: m, done: make(chan struct{}), start: m.start}
	m.mu.Unlock()
	cfg := role.Config{Host: m.host, Disk: p, BootID: m.bootID(), Log: &logger{m.t, m.host, m.said}}
	for _, s := range m.svcs {
		f := &fake{p: p, s: s}
		if s.stateless {
			cfg.Services = append(cfg.Services, &struct {
				*fake
				stateless
			}{fake: f})
		} else {
			cfg.Services = append(cfg.Services, f)
		}
	}
	for _, f := range mutate {
		f(p, &cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	ctl, err := role.New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	p.ctl = ctl
	m.t.Cleanup(p.stop) // before the bubble ends
	go func() {
		defer close(p.done)
		ctl.Run(ctx)
	}()
	return p
}

// kill ends the process where it stands.
func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.cancel()
}

// stop is kill, and waits.
func (p *process) stop() { p.kill(); <-p.done }

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (m *machine) setPoint(f func(p *process, what string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.point = f
}

func (m *machine) setPace(f func(p *process, what string) (time.Duration, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pace = f
}

func (m *machine) setDiskf(f func(name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.diskf = f
}

// at is a point at which the process can be killed.
func (p *process) at(what string) error {
	if p.isDead() {
		return errDead
	}
	p.m.mu.Lock()
	point := p.m.point
	p.m.mu.Unlock()
	if point != nil {
		point(p, what)
	}
	if p.isDead() {
		return errDead
	}
	return nil
}

// Read is of role.Disk.
func (p *process) Read(name string) ([]byte, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	data, ok := p.m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

// Write is of role.Disk.
func (p *process) Write(name string, data []byte) error {
	if err := p.at("before writing " + name); err != nil {
		return err
	}
	p.m.mu.Lock()
	diskf := p.m.diskf
	p.m.mu.Unlock()
	if diskf != nil {
		if err := diskf(name); err != nil {
			return err
		}
	}
	p.m.mu.Lock()
	p.m.files[name] = slices.Clone(data)
	p.m.mu.Unlock()
	return p.at("after writing " + name)
}

// recorded is what is on the disk.
func (m *machine) recorded() role.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record()
}

// record is recorded for who has the lock.
func (m *machine) record() role.Record {
	r, err := role.ReadRecord(readOnly(maps.Clone(m.files)))
	if err != nil {
		m.t.Error(err)
	}
	return r
}

type readOnly map[string][]byte

func (d readOnly) Read(name string) ([]byte, error) {
	data, ok := d[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (d readOnly) Write(string, []byte) error { return errors.New("read-only") }

type stateless struct{}

func (stateless) Stateless() {}

// fake is a service of a process.
type fake struct {
	p *process
	s *disked
}

func (f *fake) Name() string { return f.s.name }

func (f *fake) Observe(ctx context.Context) role.Observation {
	if err := f.p.wait(ctx, "look at "+f.s.name); err != nil {
		return role.Observation{State: role.Unknown, Detail: err.Error()}
	}
	f.p.m.mu.Lock()
	defer f.p.m.mu.Unlock()
	return role.Observation{State: f.p.m.is(f.s), Detail: "seen", Facts: *f.s}
}

// wait lets the time of a step or a look go by.
func (p *process) wait(ctx context.Context, what string) error {
	p.m.mu.Lock()
	pace := p.m.pace
	p.m.mu.Unlock()
	if pace != nil {
		d, err := pace(p, what)
		if d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (f *fake) Clean(o role.Observation) error {
	if o.Facts.(disked).unclean {
		return errors.New("it did not end well")
	}
	return nil
}

func (f *fake) Plan(o role.Observation, to role.State) ([]role.Step, error) {
	s, ok := o.Facts.(disked)
	if !ok {
		s = disked{untidy: true}
	}
	if f.s.follows != "" {
		return nil, nil
	}
	prepare := f.step("prepare", func(s *disked) { s.prepared = true })
	open := f.step("open", func(s *disked) {
		if !s.prepared {
			f.p.m.t.Errorf("%s%s opens unprepared", f.p.m.host, s.name)
		}
		if f.p.m.opens != nil {
			f.p.m.opens(s, f.p)
		}
		s.state, s.untidy, s.copied, s.unclean = role.Open, false, false, false
	})
	fence := f.step("fence", func(s *disked) {
		if s.state != role.Standby {
			s.state, s.untidy, s.prepared = role.Closed, true, false
		}
	})
	tidy := f.step("tidy", func(s *disked) { s.untidy = false })
	copied := f.step("copy", func(s *disked) { s.copied = true })
	follow := f.step("follow", func(s *disked) {
		s.state, s.prepared, s.untidy = role.Standby, false, false
	})
	switch {
	case to == role.Open && o.State == role.Open, to == role.Standby && o.State == role.Standby:
		return nil, nil
	case to == role.Open && s.diverged && !s.prepared:
		return nil, errors.New("its files are not whole")
	case to == role.Open && s.prepared:
		return []role.Step{open}, nil
	case to == role.Open:
		return []role.Step{prepare, open}, nil
	case to == role.Standby && s.diverged:
		return nil, errors.New("run by hand: pg_rewind")
	case to == role.Standby && s.copied:
		return []role.Step{follow}, nil
	case to == role.Standby:
		return []role.Step{copied, follow}, nil
	case o.State == role.Open || o.State == role.Unknown:
		return []role.Step{fence, tidy}, nil
	case s.untidy:
		return []role.Step{tidy}, nil
	}
	return nil, nil
}

func (f *fake) step(name string, do func(s *disked)) role.Step {
	what := name + " " + f.s.name
	return role.Step{Name: name, Detail: "will " + what, Timeout: 5 * time.Second, Run: func(ctx context.Context) (string, error) {
		if err := f.p.at("before " + what); err != nil {
			return "", err
		}
		if err := f.p.wait(ctx, what); err != nil {
			return "", err
		}
		f.p.m.mu.Lock()
		if f.p.isDead() || ctx.Err() != nil {
			f.p.m.mu.Unlock()
			return "", errDead
		}
		if strings.HasPrefix(name, "follow") && f.s.state == role.Open {
			f.p.m.mu.Unlock()
			if f.p.m.strict {
				f.p.m.t.Errorf("%s%s is open, and is made a standby", f.p.m.host, f.s.name)
			}
			return "", errors.New("it is open")
		}
		do(f.s)
		f.p.m.mu.Unlock()
		if err := f.p.at("after " + what); err != nil {
			return "", err
		}
		return "did " + what, ctx.Err() // done is done, also if it was told to end
	}}
}

type logger struct {
	t    testing.TB
	host string
	said func(line string)
}

func (l *logger) Infof(f string, v ...any)    { l.say("info ", f, v...) }
func (l *logger) Warningf(f string, v ...any) { l.say("warn ", f, v...) }
func (l *logger) Errorf(f string, v ...any)   { l.say("error", f, v...) }
func (l *logger) say(level, f string, v ...any) {
	line := fmt.Sprintf(f, v...)
	l.t.Logf("%s %s %s %s", time.Now().Format("15:04:05.000"), l.host, level, line)
	if l.said != nil {
		l.said(line)
	}
}

// until waits for a role that is as wanted.
func (p *process) until(what string, want func(r evidence.Role) bool) evidence.Role {
	p.m.t.Helper()
	for range 60 * 100 {
		if r := p.ctl.Status(); want(r) {
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.m.t.Fatalf("waited a minute for %s, and the role is %+v, services %s", what, p.ctl.Status(), p.m.states())
	panic("unreachable")
}

// state waits for one under a version.
func (p *process) state(state string, v register.Version) evidence.Role {
	p.m.t.Helper()
	return p.until(state+" under "+v.String(), func(r evidence.Role) bool { return r.State == state && r.Version == v.String() })
}

const (
	m1 = "m1.example.net."
	m2 = "m2.example.net."
	m3 = "m3.example.net."
)

func version(counter uint64) register.Version {
	if counter == 0 {
		return register.Version{}
	}
	return register.Version{Counter: counter, Node: "ns1.example.net"}
}

// heard is the knowledge of a host that has heard all nodes.
func heard(counter uint64, v camaster.Value) role.Knowledge {
	return role.Knowledge{Value: v, Version: version(counter), Parent: version(max(counter, 1) - 1), Heard: true, Boot: 1}
}

// unheard is that of one that has not.
func unheard(k role.Knowledge) role.Knowledge {
	k.Heard, k.Waits = false, []string{"ns2.example.net"}
	return k
}

func to(host string) camaster.Value { return camaster.Value{Host: host} }
func handover(host, next string) camaster.Value {
	return camaster.Value{Host: host, Handover: next}
}
