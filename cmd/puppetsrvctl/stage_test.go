package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// stage is the members on m1 and m3, which do what the register says: one step at each
// look at a host, as if time went by looks.
type stage struct {
	called     func(string)      // is told of every call, without the fake's lock
	conditions []admin.Condition // of every plan
	loss       admin.Loss
	stuck      map[string]string // by host: its role goes no further, and why
	dead       map[string]bool   // by host: its member does nothing any more
	behind     int               // looks until m3 has everything that m1 has
	rejoin     string            // what becomes of a rejoin: done, failed, manual
	asked      int               // rejoins
	slow       int               // looks until a rejoin is done
	heard      int               // looks until members hear of what was written, or asked
	pending    string            // the rejoin that was asked for, and not begun
}

const written = 4096 // m1's end of log

func services(state string) []evidence.Service {
	return []evidence.Service{{Name: "ca", State: state}, {Name: "postgresql", State: state}, {Name: "puppetdb", State: state}}
}

func newMember(host, state, version string) *admin.MasterMember {
	m := &admin.MasterMember{Name: host, State: "alive", Since: started, Release: "0.1.0", Fresh: true, Age: 0.2}
	open := map[bool]string{true: "open", false: "standby"}[state == evidence.Open]
	m.Evidence = evidence.Evidence{
		CA:         &evidence.CA{Mode: "hot", Complete: true, Sealed: open != "open", Serial: "0A", Hash: "h1", Synced: started},
		PostgreSQL: &evidence.PostgreSQL{Role: map[string]string{"open": "primary", "standby": "standby"}[open], System: "7", Timeline: 1, Written: written, Streaming: open != "open", MaxLag: 1 << 20},
		Role:       &evidence.Role{State: state, Version: version, Boot: 1, Services: services(open)},
	}
	if open != "open" {
		pg := m.Evidence.PostgreSQL
		pg.Written, pg.Received, pg.Replayed, pg.PrimaryWritten, pg.Current = 0, written, written, written, time.Now().UTC()
	}
	return m
}

// members puts members on m1, which is open, and m3, its standby.
func (f *fake) members() *stage {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stage = &stage{called: func(string) {}, stuck: make(map[string]string), dead: make(map[string]bool), behind: 2, rejoin: "done"}
	f.stage.conditions = []admin.Condition{{Name: "up", OK: true, Detail: "m3.example.net is up, as datacenter2 sees it"}}
	f.stage.loss = admin.Loss{Known: true, Since: time.Now().Add(-time.Second).UTC(), Seconds: 1, Detail: "0 bytes are known to be missing; at most what was committed in the last 1.0 s"}
	f.status.Masters[0].Member = newMember("m1.example.net", evidence.Open, f.status.Camaster.Version)
	f.status.Masters[2].Member = newMember("m3.example.net", evidence.Standby, f.status.Camaster.Version)
	return f.stage
}

func (f *fake) call(what string) {
	f.mu.Lock()
	called := func(string) {}
	if f.stage != nil {
		called = f.stage.called
	}
	f.mu.Unlock()
	called(what)
}

// refuses is what a node would refuse; the caller holds the fake's lock.
func (g *stage) refuses(status *admin.Status, set admin.SetCamaster) error {
	if set.Kind == admin.KindSwitchover {
		for _, c := range g.handover(status) {
			if c.Refuses(set.AcceptDataLoss, set.Force) {
				return &admin.Fault{Status: http.StatusConflict, Type: "unsafe", Detail: "flipped too early", Rules: []string{c.Detail}}
			}
		}
	}
	if set.Kind == admin.KindSet && status.Camaster.Handover == "" {
		return nil
	}
	for _, c := range g.conditions {
		if c.Refuses(set.AcceptDataLoss, set.Force) {
			return &admin.Fault{Status: http.StatusConflict, Type: "unsafe", Detail: "refused at the write", Rules: []string{c.Detail}}
		}
	}
	return nil
}

// handover are the conditions of a flip.
func (g *stage) handover(status *admin.Status) []admin.Condition {
	from, to := masterOf(status, status.Camaster.Host).Member.Evidence, masterOf(status, status.Camaster.Handover).Member.Evidence
	closed := from.Role.State == evidence.Closed && from.Role.Version == status.Camaster.Version
	return []admin.Condition{
		{Name: "camaster closed", OK: closed, Detail: trim(status.Camaster.Host) + " is " + from.Role.State, Passed: admin.PassForce, Waits: true},
		{Name: "replication", OK: closed && to.PostgreSQL.Received >= from.PostgreSQL.Written, Detail: trim(status.Camaster.Handover) + " has yet to receive", Passed: admin.PassAcceptDataLoss, Waits: true},
	}
}

func masterOf(status *admin.Status, host string) *admin.Master {
	i := slices.IndexFunc(status.Masters, func(m admin.Master) bool { return trim(m.Host) == trim(host) })
	return &status.Masters[i]
}

func (f *fake) Plan(kind admin.Kind, to string) (admin.Plan, error) {
	f.call("plan")
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.status.Camaster
	p := admin.Plan{Kind: kind, From: trim(c.Host), To: to, Version: c.Version, Conditions: []admin.Condition{}, Steps: []admin.PlanStep{
		{Name: "write", Detail: to + " is camaster"}, {Host: to, Service: "ca", Name: "open", Detail: "now standby"},
	}}
	if f.stage == nil {
		p.Conditions = append(p.Conditions, admin.Condition{Name: "member", Passed: admin.PassForce, Detail: "no member is known on " + to + ": the CA and the database are moved by hand there"})
		return p, nil
	}
	p.Conditions, p.Loss = slices.Clone(f.stage.conditions), f.stage.loss
	if kind == admin.KindSwitchover && c.Handover != "" {
		p.Handover = true
		p.Conditions = append(p.Conditions, f.stage.handover(&f.status)...)
	}
	p.Possible = !slices.ContainsFunc(p.Conditions, func(c admin.Condition) bool { return c.Refuses(false, false) })
	return p, nil
}

func (f *fake) Master(host string) (admin.Master, error) {
	f.call("master " + host)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.status.Masters {
		m := &f.status.Masters[i]
		if trim(m.Host) != host {
			continue
		}
		if f.stage != nil && m.Member != nil && !f.stage.dead[host] {
			// Both go on: only one of them may be looked at.
			for _, n := range []int{0, 2} {
				if x := &f.status.Masters[n]; !f.stage.dead[trim(x.Host)] {
					f.stage.act(&f.status, x)
				}
			}
		}
		return apart(*m), nil
	}
	return admin.Master{}, &admin.Fault{Status: http.StatusNotFound, Type: "unknown-master", Detail: host + " is no master"}
}

// apart is a master as it is answered: it stays as it was.
func apart(m admin.Master) admin.Master {
	if m.Member != nil {
		member := *m.Member
		member.Evidence = clone(member.Evidence)
		m.Member = &member
	}
	return m
}

func clone(e evidence.Evidence) evidence.Evidence {
	if e.Role == nil {
		return e // no host of the stage's
	}
	role, pg, ca := *e.Role, *e.PostgreSQL, *e.CA
	role.Services, role.Steps = slices.Clone(role.Services), slices.Clone(role.Steps)
	e.Role, e.PostgreSQL, e.CA = &role, &pg, &ca
	return e
}

// act is one step of a member.
func (g *stage) act(status *admin.Status, m *admin.Master) {
	e := m.Member.Evidence
	r, pg := e.Role, e.PostgreSQL
	host, c := trim(m.Host), status.Camaster
	mine := trim(c.Host) == host
	if why := g.stuck[host]; why != "" {
		r.Version, r.Reason = c.Version, why
		if r.State == evidence.Standby && mine {
			r.State = evidence.Opening
		}
		return
	}
	if g.heard > 0 {
		g.heard--
		return
	}
	if g.pending != "" && !mine {
		r.Rejoin, g.pending = &evidence.Rejoin{ID: g.pending, State: "running", Began: time.Now().UTC()}, ""
		return
	}
	if r.Rejoin != nil && r.Rejoin.State == "running" {
		if g.slow--; g.slow >= 0 {
			return
		}
		r.Rejoin = &evidence.Rejoin{ID: r.Rejoin.ID, State: g.rejoin, Began: r.Rejoin.Began, Detail: "pg_rewind --target-pgdata=/x\nsystemctl start postgresql"}
		if g.rejoin == "done" {
			r.State, r.Former = evidence.Standby, false
			r.Services = services("standby")
			pg.Role = "standby"
		}
		return
	}
	if mine && c.Handover == "" {
		r.Reason = ""
		if r.State == evidence.Open && r.Version != c.Version {
			r.State = evidence.Opening
		}
		g.toward(r, c.Version, "open", "promote", evidence.Opening, evidence.Open, false)
		if r.State == evidence.Open {
			pg.Role, e.CA.Sealed = "primary", false
		}
		return
	}
	if trim(c.Handover) == host && masterOf(status, c.Host).Member.Evidence.Role.State == evidence.Closed {
		if g.behind--; g.behind < 0 {
			pg.Received = written + 512
		}
	}
	if r.State == evidence.Standby || r.State == evidence.Closed && r.Version == c.Version {
		r.Version = c.Version
		return
	}
	closed := evidence.Closed
	if !mine && r.State == evidence.Closed && !r.Former {
		r.State, r.Version = evidence.Standby, c.Version // handed over cleanly
		return
	}
	if !mine {
		r.Former = true
	}
	g.toward(r, c.Version, "closed", "stop", evidence.Closing, closed, true)
	if r.State == closed {
		pg.Role, pg.Written, e.CA.Sealed = "stopped", written+512, true
	}
}

// toward takes one service into a state.
func (g *stage) toward(r *evidence.Role, version, state, name, underway, end string, reverse bool) {
	if r.State == end && r.Version == version {
		return
	}
	r.Version, r.State = version, underway
	order := []int{0, 1, 2}
	if reverse {
		slices.Reverse(order)
	}
	for _, i := range order {
		if s := &r.Services[i]; s.State != state {
			s.State = state
			r.Steps = append(slices.DeleteFunc(slices.Clone(r.Steps), func(s evidence.Step) bool { return s.Version != version }), evidence.Step{
				Version: version, Service: s.Name, Name: name, State: "done", Began: time.Now().UTC(), Milliseconds: float64(10 * (i + 1)), Detail: fmt.Sprintf("%s is %s", s.Name, state),
			})
			return
		}
	}
	r.State = end
}

func (f *fake) Rejoin(_ context.Context, _, host string) (admin.Rejoin, error) {
	f.call("rejoin")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stage == nil {
		return admin.Rejoin{}, &admin.Fault{Status: http.StatusConflict, Type: "no-member", Detail: "no member is known on " + host}
	}
	f.stage.asked++
	id := fmt.Sprintf("id%d", f.stage.asked)
	f.stage.pending, f.stage.heard = id, 2
	return admin.Rejoin{Host: host, ID: id}, nil
}
