package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

const (
	// glance is the pause between two questions to the node for what members do.
	glance = 50 * time.Millisecond
	// absence is how long a node that cannot be asked is asked again: it may restart.
	absence = 10 * time.Second
	// lengthy is how long a step may run before it is told that it does.
	lengthy = 3 * time.Second
)

// errLate is returned where what was waited for did not come in time.
var errLate = errors.New("time is up")

// mover makes a master the camaster, and watches what follows on the nodes and on the
// hosts. What it does is a few writes; all the rest is looking. So whatever it was when
// it ended, the same command again looks, and does what is left.
type mover struct {
	s      *session
	client *admin.Client
	page   report.Page
	status admin.Status // as it was when the command began

	wait     admin.Wait
	dnsWait  time.Duration
	roleWait time.Duration
	late     time.Time // the end of roleWait

	began   time.Time // of what is timed
	out     moved
	missing int // living DNS servers without the new name
	asked   int
	// role is that on the new camaster, as it was seen last; nil if no member is known.
	role    *evidence.Role
	opened  map[string]time.Duration // when each service was seen open, since began
	told    map[string]bool          // the steps that were printed
	running map[string]time.Time     // since when steps are seen running
	absent  time.Time                // since when the node cannot be asked
	line    func(report.Step) string
}

// moved is what a move did: the object of -o json.
type moved struct {
	Kind    admin.Kind `json:"kind"`
	From    string     `json:"from"`
	To      string     `json:"to"`
	Already bool       `json:"already,omitempty"` // nothing was to be done
	Aborted bool       `json:"aborted,omitempty"`
	DryRun  bool       `json:"dry_run,omitempty"`
	// Plan is what it went by.
	Plan    *admin.Plan    `json:"plan,omitempty"`
	Version string         `json:"version"` // that stands
	Writes  []admin.Result `json:"writes"`  // in their order
	Answers []setAnswer    `json:"answers"` // of the nodes' DNS
	Steps   []moveStep     `json:"steps"`   // of the members
	Phases  []phase        `json:"phases"`
	Open    bool           `json:"open"`            // the new camaster's role is
	Error   string         `json:"error,omitempty"` // why it is not done
}

// moveStep is a step of a member.
type moveStep struct {
	Host string `json:"host"`
	evidence.Step
}

// phase is one line of the table of times.
type phase struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"milliseconds"` // that it took
	Done         float64 `json:"done"`         // milliseconds from the beginning
}

func (s *session) newMover(client *admin.Client, status admin.Status, f *waitFlags) *mover {
	m := &mover{
		s: s, client: client, page: s.page(), status: status,
		wait: admin.Wait(f.Wait), dnsWait: time.Duration(f.DNSWait), roleWait: time.Duration(f.RoleWait), late: time.Now().Add(time.Duration(f.RoleWait)),
		began: time.Now(), opened: make(map[string]time.Duration), told: make(map[string]bool), running: make(map[string]time.Time),
	}
	m.out = moved{
		From: trim(status.Camaster.Host), Version: status.Camaster.Version,
		Writes: []admin.Result{}, Answers: []setAnswer{}, Steps: []moveStep{}, Phases: []phase{},
	}
	var hosts []string
	for _, x := range status.Masters {
		if x.Role() != nil {
			hosts = append(hosts, x.Host)
		}
	}
	m.line = m.page.Steps(hosts)
	return m
}

func trim(host string) string { return strings.TrimSuffix(host, ".") }

// say prints for people, and nothing for programs.
func (m *mover) say(text string) error {
	if m.s.json() || text == "" {
		return nil
	}
	return write(text)
}

// master is what the status had of a host.
func (m *mover) master(host string) *admin.Master {
	i := slices.IndexFunc(m.status.Masters, func(x admin.Master) bool { return strings.EqualFold(trim(x.Host), trim(host)) })
	if i < 0 {
		return nil
	}
	return &m.status.Masters[i]
}

// phase adds to the table what took a time, and is done now.
func (m *mover) phase(name string, took time.Duration) {
	m.out.Phases = append(m.out.Phases, phase{name, milliseconds(took), milliseconds(time.Since(m.began))})
}

// write writes the register.
func (m *mover) write(set admin.SetCamaster) (admin.Result, error) {
	set.Wait = m.wait
	result, err := m.client.SetCamaster(m.s.ctx, set)
	if err != nil {
		return result, m.s.written(refused(err))
	}
	m.out.Writes = append(m.out.Writes, result)
	m.out.Version = result.Write.Version
	return result, nil
}

// flip makes a master the camaster, and follows what comes of it.
func (m *mover) flip(set admin.SetCamaster) error {
	ask := askDNS(m.s.ctx, m.status.Camaster.Name, set.Host, m.status.Nodes, m.dnsWait)
	result, err := m.write(set)
	if err != nil {
		ask.stop()
		return err
	}
	m.phase("flip", time.Since(ask.began))
	answers := ask.written(result.Nodes)
	if err := m.say(m.page.Set(m.status.Camaster.Name, result)); err != nil {
		return err
	}
	err = m.follow(ask, answers, set.Host, result.Write.Version)
	if err == nil {
		err = stands(result.Met)
	}
	return err
}

// resume follows what came of a flip that was made before.
func (m *mover) resume(host string) error {
	ask := askDNS(m.s.ctx, m.status.Camaster.Name, host, m.status.Nodes, m.dnsWait)
	return m.follow(ask, ask.written(nil), host, m.status.Camaster.Version)
}

// services adds to the table when each service of the new camaster was open, and how
// long its own steps took.
func (m *mover) services() {
	if m.role == nil {
		return
	}
	for _, s := range m.role.Services {
		at, ok := m.opened[s.Name]
		if !ok {
			continue
		}
		took := 0.0
		for _, x := range m.role.Steps {
			if x.Service == s.Name && x.Version == m.role.Version {
				took += x.Milliseconds
			}
		}
		m.out.Phases = append(m.out.Phases, phase{opening(s.Name), took, milliseconds(at)})
	}
}

// opening is what it is called that a service is open.
func opening(service string) string {
	switch strings.ToLower(service) {
	case "ca":
		return "CA open"
	case "postgresql":
		return "PostgreSQL promoted"
	case "puppetdb":
		return "PuppetDB open"
	}
	return service + " open"
}

// finish prints what came of it all, with or without an error.
func (m *mover) finish(err error) error {
	if len(m.out.Writes) > 0 || len(m.out.Phases) > 0 {
		total := time.Since(m.began)
		m.out.Phases = append(m.out.Phases, phase{"total", milliseconds(total), milliseconds(total)})
	}
	if err != nil {
		_, m.out.Error = verdict(m.s.ctx, err)
	}
	if m.s.json() {
		return errors.Join(object(m.out), err)
	}
	var phases []report.Phase
	for _, p := range m.out.Phases {
		phases = append(phases, report.Phase{Name: p.Name, Took: p.Milliseconds, Done: p.Done})
	}
	if said := m.say(m.page.Phases(phases)); said != nil {
		return said
	}
	return err
}

// again adds to an error of a move that has begun how to go on.
func again(err error, format string, args ...any) error {
	var own *failure
	if errors.As(err, &own) {
		return &failure{own.code, own.text + "\n" + fmt.Sprintf(format, args...)}
	}
	return err
}
