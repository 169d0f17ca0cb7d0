package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// summary is what a member holds, in short. Whoever gets it sends back what is
// missing there. It needs no proof: what is sent has its own.
type summary struct {
	From      string               `json:"from"`
	Registers map[string][]byte    `json:"registers"` // digest of the history, by key
	Reports   map[string][2]uint64 `json:"reports"`   // boot and number, by observer
}

// digest identifies a history, without its seals.
func digest(history []register.Entry) []byte {
	h := sha256.New()
	for i := range history {
		sum := sha256.Sum256(history[i].Payload())
		h.Write(sum[:])
	}
	return h.Sum(nil)[:12]
}

func (c *Cluster) summary() *summary {
	s := &summary{From: c.cfg.Name, Registers: make(map[string][]byte), Reports: make(map[string][2]uint64)}
	state := c.Registers()
	for _, k := range state.Keys() {
		s.Registers[k] = digest(state.History(k))
	}
	rs := c.reports
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for name, h := range rs.held {
		s.Reports[name] = [2]uint64{h.report.Boot, h.report.Seq}
	}
	s.Reports[c.cfg.Name] = [2]uint64{rs.own.Boot, rs.own.Seq}
	return s
}

// takeSummary sends a member what it has not.
func (c *Cluster) takeSummary(s *summary) {
	if s.From == c.cfg.Name {
		return
	}
	c.compare(s)
	if !c.hand(s.From) {
		return
	}
	to := []gossip.Member{{Name: s.From}}
	state := c.Registers()
	var missing []register.Entry
	flush := func() {
		if len(missing) == 0 {
			return
		}
		m, err := c.registers.newEntries(c.cfg.Name, 0, missing)
		if err != nil {
			c.cfg.Log.Errorf("Cluster: %s", err)
			return
		}
		c.post(to, &message{Entries: m})
		missing = nil
	}
	for _, k := range state.Keys() {
		if h := state.History(k); !bytes.Equal(s.Registers[k], digest(h)) {
			if len(missing)+len(h) > maxEntries {
				flush()
			}
			missing = append(missing, h...)
		}
	}
	flush()
	var send []*message
	rs := c.reports
	rs.mu.Lock()
	for name, h := range rs.held {
		theirs := s.Reports[name]
		// Also its own from before a loss of its disk, which it has to outlive.
		if h.report.Boot > theirs[0] || h.report.Boot == theirs[0] && h.report.Seq > theirs[1] {
			send = append(send, &message{Report: h.sealed})
		}
	}
	own, theirs := rs.own, s.Reports[c.cfg.Name]
	rs.mu.Unlock()
	if own.Boot > theirs[0] || own.Boot == theirs[0] && own.Seq > theirs[1] {
		if m := c.ownReport(); m != nil {
			send = append(send, m)
		}
	}
	for _, m := range send {
		c.post(to, m)
	}
}

// handSpacing is the least time between two answers to one member's summaries: a
// summary costs its sender little. What comes too soon, the next exchange makes up for.
const handSpacing = 100 * time.Millisecond

// hand reports whether a member may be sent what it lacks now.
func (c *Cluster) hand(to string) bool {
	now := time.Now()
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if last, ok := c.calls.handed[to]; ok && now.Sub(last) < handSpacing && !now.Before(last) {
		return false
	}
	if len(c.calls.handed) >= maxKnown {
		clear(c.calls.handed)
	}
	c.calls.handed[to] = now
	return true
}

// delegate is what the pool calls, from its first moment on.
type delegate struct {
	*Cluster
	started <-chan struct{} // closed when the cluster has its pool
}

// Received implements gossip.Delegate.
func (d delegate) Received(data []byte) {
	<-d.started
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		d.log.Refused("message", "Cluster: a message is no message: %s", err)
		return
	}
	switch {
	case m.Entries != nil:
		d.takeEntries(m.Entries)
	case m.Report != nil:
		d.takeReport(m.Report)
	case m.Beat != nil:
		d.takeBeat(m.Beat)
	case m.Summary != nil:
		d.takeSummary(m.Summary)
	case m.Reply != nil:
		d.takeReply(m.Reply)
	case m.Call != nil:
		d.takeCall(m.Call)
	}
}

// State implements gossip.Delegate.
func (d delegate) State() []byte {
	<-d.started
	data, err := json.Marshal(d.summary())
	if err != nil {
		d.cfg.Log.Errorf("Cluster: %s", err)
	}
	return data
}

// Merge implements gossip.Delegate.
func (d delegate) Merge(state []byte) {
	<-d.started
	var s summary
	if err := json.Unmarshal(state, &s); err != nil {
		d.log.Refused("message", "Cluster: another member's state is none: %s", err)
		return
	}
	d.takeSummary(&s)
}

// Changed implements gossip.Delegate. Who has just come is told everything.
func (d delegate) Changed() {
	<-d.started
	members := d.members()
	newcomers := d.known.meet(members)
	newcomers = slices.DeleteFunc(newcomers, func(m gossip.Member) bool { return m.Name == d.cfg.Name })
	if len(newcomers) > 0 {
		d.post(newcomers, &message{Summary: d.summary()})
		if m := d.ownReport(); m != nil {
			d.post(newcomers, m)
		}
	}
	d.reports.keep(members)
	d.cfg.Changed()
}
