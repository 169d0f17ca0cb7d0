package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Cluster is how a runtime takes part in a cluster.
type Cluster struct {
	// Pool identifies what a membership cannot change while it runs: the name and
	// the addresses of gossip. A reload that changes it leaves the pool and joins it
	// anew; any other does not.
	Pool string
	// Trusts identifies Trust, in the same way for the API's listeners.
	Trusts  string
	Name    string // of this node
	Release string
	// Datacenter is where it stands, "" for none.
	Datacenter string
	Gossip     *gossip.Config // nil: a cluster of one
	KeyFile    string         // of the gossip, "" for none
	Trust      Trust
	Policy     cluster.Policy
	// DNS is where this node answers; an unspecified address stands for gossip's.
	DNS   []netip.AddrPort
	Admin Admin
}

// Trust is who this node is and whom it believes.
type Trust struct {
	Identity  *trust.Identity
	Authority *trust.Authority
}

// Admin is the API of a node; without addresses there is none.
type Admin struct {
	Addresses []string
	Allow     admin.Allow
}

// goodbye is how long it takes at most to tell the others that this node leaves.
const goodbye = time.Second

// membership is this process's part in a cluster: the pool, the registers and the
// API. It belongs to a state directory rather than to a runtime, for it lives on when
// a reload replaces one runtime by another, and it goes by what the newest of them
// says. When that one fails to start, the one before counts again.
type membership struct {
	dir *stateDir
	log Logger

	// conflicts counts writes that won over one which their writer did not know.
	conflicts atomic.Uint64
	cluster   atomic.Pointer[cluster.Cluster] // never nil
	events    *events

	// The registry's lock guards these.
	applied *Cluster
	server  *admin.Server
	serving string // the addresses and the trust of the server

	mu      sync.Mutex
	holders []*Node // the newest last
	broken  error   // why what was applied does not work; nil if it does
	told    *register.State
}

// untold returns the keys that were written since it was called last, none the first
// time.
func (m *membership) untold(now register.State) (keys []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told != nil {
		for _, key := range now.Keys() {
			if now.Version(key).Compare(m.told.Version(key)) > 0 {
				keys = append(keys, key)
			}
		}
	}
	if m.told == nil || now.Contains(*m.told) { // another runtime may have looked later
		m.told = &now
	}
	return keys
}

// join returns the membership for cfg, which it holds from then on. The registry is
// locked.
func join(cfg *Config, dir *stateDir) (*membership, error) {
	m := registry.memberships[dir]
	if m == nil {
		m = &membership{dir: dir, log: cfg.Log, events: newEvents()}
		for _, other := range registry.memberships {
			if other.applied == nil { // broken: it has no socket
				continue
			}
			if a, b := cfg.Cluster.Gossip, other.applied.Gossip; a != nil && b != nil && a.Bind == b.Bind {
				return nil, fmt.Errorf("gossip at %s is in the cluster whose state is in %s: a running cluster cannot move to another directory, and two cannot share an address; restart the server, or give each its own", a.Bind, other.dir.path)
			}
		}
	}
	if err := m.apply(cfg.Cluster); err != nil {
		return nil, err
	}
	registry.memberships[dir] = m
	return m, nil
}

// apply makes cfg what holds. With an error what held before does again, if it can.
func (m *membership) apply(cfg *Cluster) error {
	before := m.applied
	err := m.change(cfg)
	if err == nil {
		m.setBroken(nil)
		return nil
	}
	if before == nil {
		if c := m.cluster.Load(); c != nil {
			c.Close()
		}
		return err
	}
	back := m.change(before)
	m.setBroken(back)
	return errors.Join(err, back)
}

// setBroken remembers that the configuration that holds does not work.
func (m *membership) setBroken(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func (m *membership) problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

func (m *membership) change(cfg *Cluster) error {
	policy := cfg.Policy
	policy.Identity, policy.Authority = cfg.Trust.Identity, cfg.Trust.Authority
	if m.applied == nil || m.applied.Pool != cfg.Pool {
		if old := m.cluster.Load(); old != nil {
			m.unserve()
			old.Leave(goodbye)
		}
		m.applied = nil
		c, err := m.start(cfg)
		if err != nil {
			return err
		}
		m.cluster.Store(c)
	} else if err := m.cluster.Load().Update(policy); err != nil {
		return err
	}
	m.applied = cfg
	return m.serve()
}

func (m *membership) start(cfg *Cluster) (*cluster.Cluster, error) {
	disk, registers := m.dir.open(m.log)
	var g *gossip.Config
	if cfg.Gossip != nil {
		copied := *cfg.Gossip
		g = &copied
		if cfg.KeyFile != "" {
			ring, err := gossip.OpenKeyRing(cfg.KeyFile)
			if err != nil {
				return nil, err
			}
			g.KeyRing = ring
		}
	}
	return cluster.Start(cluster.Config{
		Name: cfg.Name, Role: cluster.RoleNode, Identity: cfg.Trust.Identity, Authority: cfg.Trust.Authority,
		Policy: cfg.Policy, Registers: registers, Disk: disk, Gossip: g, Log: clusterLog{m.log},
		Changed:  m.changed,
		Conflict: m.conflict,
	})
}

// serve listens where the configuration says. Listeners stay over a reload that
// does not change them.
func (m *membership) serve() error {
	cfg := m.applied
	serving := fmt.Sprintf("%q %s", cfg.Admin.Addresses, cfg.Trusts)
	if len(cfg.Admin.Addresses) == 0 || m.serving != serving {
		m.unserve()
	}
	if len(cfg.Admin.Addresses) == 0 {
		return nil
	}
	if m.server != nil {
		m.server.SetAllow(cfg.Admin.Allow)
		return nil
	}
	server, err := admin.Listen(admin.Config{
		Addresses: cfg.Admin.Addresses, Identity: cfg.Trust.Identity, Authority: cfg.Trust.Authority,
		Allow: cfg.Admin.Allow, Log: m.log,
	})
	if err != nil {
		return err
	}
	m.server, m.serving = server, serving
	if n := m.newest(); n != nil {
		server.SetBackend(api{n})
	}
	return nil
}

func (m *membership) unserve() {
	if m.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := m.server.Close(ctx); err != nil {
		m.log.Warningf("API: %s", err)
	}
	m.server = nil
}

// hold makes n the newest holder.
func (m *membership) hold(n *Node) {
	m.mu.Lock()
	m.holders = append(m.holders, n)
	m.mu.Unlock()
	n.kick() // for what has changed since it looked
	if m.server != nil {
		m.server.SetBackend(api{n})
	}
}

// release ends n's hold; the last one leaves the cluster.
func (m *membership) release(n *Node) {
	m.mu.Lock()
	m.holders = slices.DeleteFunc(m.holders, func(h *Node) bool { return h == n })
	m.mu.Unlock()
	h := m.newest()
	if h == nil {
		delete(registry.memberships, m.dir)
		m.unserve()
		m.cluster.Load().Leave(goodbye)
		return
	}
	if m.applied != h.cfg.Cluster {
		err := m.change(h.cfg.Cluster)
		if m.setBroken(err); err != nil {
			m.log.Errorf("The cluster's configuration from before does not work any more, restart the server: %s", err)
		}
	}
	if m.server != nil {
		m.server.SetBackend(api{h})
	}
}

func (m *membership) newest() *Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.holders) == 0 {
		return nil
	}
	return m.holders[len(m.holders)-1]
}

// changed has every runtime look.
func (m *membership) changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.holders {
		n.kick()
	}
}

func (m *membership) conflict(winner register.Entry, unknown []register.Entry) {
	m.conflicts.Add(uint64(len(unknown)))
	for _, u := range unknown {
		m.log.Warningf("Register %s: %s of %s (%s) won over %s of %s (%s), which it did not know", winner.Key,
			winner.Version, winner.Actor, winner.Reason, u.Version, u.Actor, u.Reason)
		m.events.add(admin.Event{Kind: "problem", Time: time.Now().UTC(), Node: m.cluster.Load().Name(), Subject: keyView(winner.Key),
			Text: fmt.Sprintf("conflict: %s of %s (%s) holds, and its writer did not know %s of %s (%s)", valueView(&winner), winner.Actor, winner.Reason, valueView(&u), u.Actor, u.Reason)})
	}
}

// open returns the directory's registers, opened once for as long as it is held, and
// where else a cluster keeps things.
func (d *stateDir) open(log Logger) (cluster.Disk, *cluster.Registers) {
	var disk cluster.Disk
	switch {
	case d.path == "":
	case d.lock != nil:
		disk = store.Dir(d.path)
	default:
		disk = noDisk{d.serials.Err()}
	}
	if d.registers == nil {
		d.registers = cluster.OpenRegisters(disk, clusterLog{log})
	}
	return disk, d.registers
}

// noDisk is a state directory that cannot be used.
type noDisk struct{ err error }

func (d noDisk) Read(string) ([]byte, error) { return nil, d.err }
func (d noDisk) Write(string, []byte) error  { return d.err }

// clusterLog leaves out what memberlist says while nothing is wrong.
type clusterLog struct{ Logger }

func (clusterLog) Debugf(string, ...any) {}
