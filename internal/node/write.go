package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/topology"
)

// SetCamaster implements admin.Backend.
func (n api) SetCamaster(ctx context.Context, actor string, set admin.SetCamaster) (admin.Result, error) {
	p := n.look() // what is true now, not at the last build
	to, err := p.master(set.Host)
	if err != nil {
		return admin.Result{}, err
	}
	next := "" // to whom it is handed over
	if set.Kind == admin.KindHandover {
		if to.Host != p.camaster() {
			return admin.Result{}, conflict("not-camaster", "Not the camaster", "%s cannot hand over: the camaster is %s", host(to.Host), host(p.camaster()))
		}
		if to, err = p.master(set.Handover); err != nil {
			return admin.Result{}, err
		}
		next = to.Host
	}
	expect, err := register.ParseVersion(set.Expect)
	if err != nil {
		return admin.Result{}, &admin.Fault{Status: http.StatusBadRequest, Type: "invalid", Title: "Not a version", Detail: "expect: " + err.Error()}
	}
	kind := set.Kind
	if kind == admin.KindHandover {
		kind = admin.KindSwitchover
	}
	m := n.move(p, kind, to)
	if set.Kind == admin.KindSwitchover && !m.handing() {
		return admin.Result{}, conflict("no-handover", "No handover", "%s does not hand over to %s: `puppetsrvctl switchover --to %[2]s` begins with that", m.from.host, m.to.host)
	}
	if m.version != set.Expect { // what was looked at is another one; the register says the same, later
		current := p.camasterView()
		f := conflict("version-conflict", "Another version stands", "%s", (&cluster.VersionError{Expected: expect, Current: p.registers.Version(camaster.Key)}).Error())
		f.Current = &current
		return admin.Result{}, f
	}
	if refusals := m.refusals(&set); len(refusals) > 0 {
		f := conflict("unsafe", "Refused by the safety rules", "%s cannot safely become camaster; put that right, or insist with force", host(to.Host))
		f.Rules = refusals
		return admin.Result{}, f
	}
	w := camasterWrite{Value: camaster.Value{Host: to.Host, From: p.camaster()}, Kind: set.Kind, Accepted: m.accepted(&set)}
	if next != "" {
		w.Host, w.Handover = p.camaster(), next
	}
	if peer := p.member(w.Host); peer != nil {
		w.Boot = peer.Report.Boot
	}
	// The epoch of a failover is raised: it wins over what the other side of a cut, with
	// the camaster in it, has written meanwhile.
	w.Raised = set.Kind == admin.KindFailover && !set.Force
	value, err := json.Marshal(w)
	if err != nil {
		return admin.Result{}, err
	}
	return n.write(ctx, cluster.Change{Key: camasterKey, Value: value, Expect: &expect, Actor: actor, Reason: set.Reason, Forced: set.Force || w.Raised}, set.Wait)
}

func conflict(kind, title, format string, args ...any) *admin.Fault {
	return &admin.Fault{Status: http.StatusConflict, Type: kind, Title: title, Detail: fmt.Sprintf(format, args...)}
}

// Drain implements admin.Backend.
func (n api) Drain(ctx context.Context, actor, name string, set admin.SetDrain) (admin.Result, error) {
	m, err := n.look().master(name)
	if err != nil {
		return admin.Result{}, err
	}
	var expires time.Time
	if set.For != "" {
		d, err := time.ParseDuration(set.For)
		if err != nil || d <= 0 {
			return admin.Result{}, &admin.Fault{Status: http.StatusBadRequest, Type: "invalid", Title: "Not a duration", Detail: fmt.Sprintf("for: %q is no duration, as in 30m", set.For)}
		}
		expires = time.Now().Add(d).UTC()
	}
	return n.drainTo(ctx, actor, m, true, set.Reason, expires, set.Wait)
}

// Undrain implements admin.Backend.
func (n api) Undrain(ctx context.Context, actor, name, reason string) (admin.Result, error) {
	p := n.look()
	host := topology.Master{Host: fqdn(name)}
	if m, err := p.master(name); err == nil {
		host = *m
	} else if p.registers.Version(drainKey(host.Host)).IsZero() {
		return admin.Result{}, err // neither a master nor one that was drained once
	}
	if why := p.unfit(host.Host); why != "" {
		if _, drained := p.drain(host.Host); !drained {
			return admin.Result{}, &admin.Fault{
				Status: http.StatusConflict, Type: "unfit", Title: "It wants no work itself",
				Detail: fmt.Sprintf("%s is not drained by an operator: %s; on that host, `puppetsrv-member undrain` ends a drain of its own", name, why),
			}
		}
	}
	if reason == "" {
		reason = "ended by hand"
	}
	return n.drainTo(ctx, actor, &host, false, reason, time.Time{}, admin.WaitAll)
}

func (n api) drainTo(ctx context.Context, actor string, m *topology.Master, drained bool, reason string, expires time.Time, wait admin.Wait) (admin.Result, error) {
	value, err := json.Marshal(drainValue{Drained: drained})
	if err != nil {
		return admin.Result{}, err
	}
	return n.write(ctx, cluster.Change{Key: drainKey(m.Host), Value: value, Actor: actor, Reason: reason, Expires: expires}, wait)
}

// master finds a master by its host name.
func (p *picture) master(name string) (*topology.Master, error) {
	if m := p.plan.Topology.Master(fqdn(name)); m != nil {
		return m, nil
	}
	var hosts []string
	for _, m := range p.plan.Topology.Masters {
		hosts = append(hosts, host(m.Host))
	}
	if len(hosts) > 8 {
		hosts = append(hosts[:8], "...")
	}
	return nil, &admin.Fault{Status: http.StatusNotFound, Type: "unknown-master", Title: "No such master", Detail: fmt.Sprintf("%s is no master: the masters are %s", name, strings.Join(hosts, ", "))}
}

// write writes a register and says what became of it.
func (n api) write(ctx context.Context, ch cluster.Change, wait admin.Wait) (admin.Result, error) {
	c := n.m.cluster.Load()
	waits := map[admin.Wait]cluster.Wait{"": cluster.WaitAll, admin.WaitAll: cluster.WaitAll, admin.WaitMajority: cluster.WaitMajority, admin.WaitNone: cluster.WaitNone}
	r, err := c.Write(ctx, ch, waits[wait])
	if err != nil {
		return admin.Result{}, n.fault(err)
	}
	if !r.Superseded.IsZero() {
		current := n.look().camasterView()
		return admin.Result{}, &admin.Fault{
			Status: http.StatusConflict, Type: "superseded", Title: "Another write has won", Current: &current,
			Detail: fmt.Sprintf("version %s was written, and version %s, which it did not know, stands: look at the history, and write again if it is to be otherwise", r.Entry.Version, r.Superseded),
		}
	}
	p := n.look()
	history := p.registers.History(ch.Key)
	result := admin.Result{Write: writeOf(history, &r.Entry), Acked: 1, Of: 1 + len(r.Answers), Met: r.Met}
	result.Nodes = append(n.acks(p, r.Answers), admin.Ack{Node: c.Name(), Acked: true, DNS: n.dns(p)})
	for _, a := range r.Answers {
		if a.Err == nil {
			result.Acked++
		}
	}
	slices.SortFunc(result.Nodes, func(a, b admin.Ack) int { return strings.Compare(a.Node, b.Node) })
	return result, nil
}

func (n api) acks(p *picture, answers []cluster.Answer) []admin.Ack {
	acks := []admin.Ack{}
	for _, a := range answers {
		ack := admin.Ack{Node: a.Name, Acked: a.Err == nil, Milliseconds: float64(a.After.Microseconds()) / 1000}
		if a.Err != nil {
			ack.Error = a.Err.Error()
		}
		if peer := p.peer(a.Name); peer != nil && peer.Report != nil {
			ack.DNS = peer.Report.DNS
		}
		acks = append(acks, ack)
	}
	return acks
}

// fault is an error of the cluster as a client can act on it.
func (n api) fault(err error) error {
	var version *cluster.VersionError
	var notAllowed *cluster.NotAllowedError
	var notSettled *cluster.NotSettledError
	switch {
	case errors.As(err, &notSettled):
		return &admin.Fault{Status: http.StatusServiceUnavailable, Type: "not-settled", Title: "Just started", Detail: err.Error() + "; with force it is written at once"}
	case errors.As(err, &version):
		current := n.look().camasterView()
		return &admin.Fault{Status: http.StatusConflict, Type: "version-conflict", Title: "Another version stands", Detail: err.Error(), Current: &current}
	case errors.As(err, &notAllowed):
		return &admin.Fault{Status: http.StatusServiceUnavailable, Type: "node-not-allowed", Title: "This node may not write", Detail: err.Error()}
	case errors.Is(err, cluster.ErrNotEncrypted):
		return &admin.Fault{Status: http.StatusConflict, Type: "not-encrypted", Title: "There are no gossip keys", Detail: err.Error()}
	}
	return &admin.Fault{Status: http.StatusServiceUnavailable, Type: "not-written", Title: "It cannot be written", Detail: err.Error()}
}

// Keys implements admin.Backend.
func (n api) Keys(ctx context.Context) (admin.Keys, error) {
	rings, err := n.m.cluster.Load().Keys(ctx)
	if err != nil {
		return admin.Keys{}, n.fault(err)
	}
	keys := admin.Keys{Nodes: []admin.NodeKeys{}}
	for _, r := range rings {
		v := admin.NodeKeys{Node: r.Name, Keys: []admin.Key{}}
		if r.Err != nil {
			v.Error = r.Err.Error()
		}
		for _, k := range r.Keys {
			v.Keys = append(v.Keys, admin.Key(k))
		}
		keys.Nodes = append(keys.Nodes, v)
	}
	return keys, nil
}

// AddKey implements admin.Backend.
func (n api) AddKey(ctx context.Context, actor string) (admin.KeyResult, error) {
	id, answers, err := n.m.cluster.Load().AddKey(ctx)
	return n.keyResult(actor, "made and added", id, answers, err)
}

// UseKey implements admin.Backend.
func (n api) UseKey(ctx context.Context, actor, id string) (admin.KeyResult, error) {
	answers, err := n.m.cluster.Load().UseKey(ctx, id)
	return n.keyResult(actor, "made primary", id, answers, err)
}

// RemoveKey implements admin.Backend.
func (n api) RemoveKey(ctx context.Context, actor, id string) (admin.KeyResult, error) {
	answers, err := n.m.cluster.Load().RemoveKey(ctx, id)
	return n.keyResult(actor, "removed", id, answers, err)
}

func (n api) keyResult(actor, what, id string, answers []cluster.Answer, err error) (admin.KeyResult, error) {
	if err != nil {
		if errors.Is(err, cluster.ErrNotEncrypted) {
			return admin.KeyResult{}, n.fault(err)
		}
		return admin.KeyResult{}, &admin.Fault{Status: http.StatusConflict, Type: "key-refused", Title: "The key rings are as they were", Detail: err.Error()}
	}
	n.cfg.Log.Infof("Gossip: key %s was %s by %s", id, what, actor)
	p := n.look()
	r := admin.KeyResult{ID: id, Acked: 1, Of: 1 + len(answers), Nodes: append(n.acks(p, answers), admin.Ack{Node: n.cfg.Cluster.Name, Acked: true})}
	for _, a := range answers {
		if a.Err == nil {
			r.Acked++
		}
	}
	slices.SortFunc(r.Nodes, func(a, b admin.Ack) int { return strings.Compare(a.Node, b.Node) })
	return r, nil
}
