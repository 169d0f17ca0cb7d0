// Package cluster is what the members hold in common: who is there, the registers
// and what each observer says. It joins gossip, registers, seals and files, and
// answers to nobody's DNS.
//
// The gossip key brings a message in and proves nothing. What counts carries a
// seal: a register entry its writer's, a report its observer's, a call its caller's.
//
// Registers go three ways, each of which alone is enough: a writer calls every
// live node at once; members that meet compare what they hold and send each other
// what is missing; and each has its own on disk.
package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Role is what a member is.
type Role string

// The roles.
const (
	RoleNode   Role = "node"   // a DNS server: an observer, and a writer of registers
	RoleMaster Role = "master" // a Puppet server: it holds the registers and announces itself
)

// Logger is what a cluster needs of a log.
type Logger = gossip.Logger

// Disk keeps files, as store does.
type Disk interface {
	Read(name string) ([]byte, error) // fs.ErrNotExist where there is none
	Write(name string, data []byte) error
}

// Policy is who may what. A reload may change it.
type Policy struct {
	// Admit says whether a member of this name may join.
	Admit func(name string) bool
	// Signers are the certnames of nodes: whose register entries and reports count.
	Signers func(certname string) bool
	// Join has the seeds of gossip.
	Join []string
	// Identity seals what this member says; Authority judges the seals of others.
	Identity  *trust.Identity
	Authority *trust.Authority
}

// Config is what a cluster is started with.
type Config struct {
	Name   string // of this member
	Role   Role
	Policy Policy
	// Identity and Authority are the policy's where that has none.
	Identity  *trust.Identity
	Authority *trust.Authority
	// Registers outlive the cluster; nil opens those of Disk.
	Registers *Registers
	// Disk is for what else is remembered. It may be nil.
	Disk Disk
	// Gossip is nil for a cluster of one. Its Name, Meta, Admit, Join, Delegate and
	// Log are filled in here.
	Gossip *gossip.Config
	Log    Logger
	// Changed says that registers, reports or members are no longer what they were.
	// It must not block. It may be nil.
	Changed func()
	// Conflict is called for each register entry that turns out to have won against
	// one that its writer did not know. It must not block. It may be nil.
	Conflict func(winner register.Entry, unknown []register.Entry)
	// Operate does what a node asks this member for by Ask. It may take as long as a
	// caller waits, three seconds. nil: nothing can be asked for.
	Operate func(ctx context.Context, op string, arg []byte) (any, error)
	// Beat is the time between two signs of life of an observer; 0: 5 s.
	Beat time.Duration
}

// Cluster is this process's part in it. All methods are safe for concurrent use.
type Cluster struct {
	cfg     Config
	pool    *gossip.Pool // nil in a cluster of one
	policy  atomic.Pointer[Policy]
	started time.Time
	log     *sparse

	registers *Registers
	reports   *reports
	known     *known
	calls     *calls

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	inbox  chan received // register entries of others, for the disk's own goroutine
	turn   chan struct{} // held by the write that waits for the disk
	ended  sync.Once

	// settled is set when this member has learned what another one holds; behind is
	// who is known to hold something else. The calls' lock guards behind.
	settled atomic.Bool
	behind  map[string]bool
}

// closing is how long a disk is waited for in the end.
const closing = 2 * time.Second

// beat is the default of Config.Beat.
const beat = 5 * time.Second

// Start reads what is on disk and joins the pool. A damaged file is no error: the
// cluster works without it, learns from the others, writes nothing over it, and
// Problem says so.
func Start(cfg Config) (*Cluster, error) {
	if cfg.Beat == 0 {
		cfg.Beat = beat
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	c := &Cluster{cfg: cfg, started: time.Now(), log: newSparse(cfg.Log), inbox: make(chan received, inboxSize), turn: make(chan struct{}, 1), behind: make(map[string]bool)}
	if cfg.Policy.Identity == nil {
		cfg.Policy.Identity, cfg.Policy.Authority = cfg.Identity, cfg.Authority
	}
	c.policy.Store(&cfg.Policy)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.registers = cfg.Registers; c.registers == nil {
		c.registers = OpenRegisters(cfg.Disk, cfg.Log)
	}
	c.known = openKnown(cfg.Disk, c.log, c.started)
	c.reports = newReports(&cfg, c.started, c.known.boot())
	c.calls = newCalls()
	if cfg.Gossip != nil {
		g := *cfg.Gossip
		g.Name, g.Meta, g.Log, g.Join = cfg.Name, encodeMeta(cfg.Role), cfg.Log, cfg.Policy.Join
		started := make(chan struct{})
		g.Admit, g.Delegate = admit(cfg.Policy.Admit), delegate{c, started}
		var err error
		c.pool, err = gossip.Start(g)
		close(started)
		if err != nil {
			c.cancel()
			return nil, err
		}
	}
	c.done.Go(c.runInbox)
	c.done.Go(c.runBeat)
	c.done.Go(c.runUpkeep)
	c.done.Go(c.runRetry)
	return c, nil
}

func admit(name func(string) bool) func(gossip.Member) error {
	return func(m gossip.Member) error {
		if name == nil || name(m.Name) {
			return nil
		}
		return errors.New("the configuration does not know it: name it, or let `members accept PATTERN` match it")
	}
}

// Update takes another policy. Without an identity in it the one from before stays.
func (c *Cluster) Update(p Policy) error {
	if before := c.policy.Load(); p.Identity == nil {
		p.Identity, p.Authority = before.Identity, before.Authority
	}
	c.policy.Store(&p)
	c.judgeAgain()
	if c.pool == nil {
		return nil
	}
	return c.pool.Update(p.Join, admit(p.Admit))
}

// Leave says goodbye, for at most timeout, and ends.
func (c *Cluster) Leave(timeout time.Duration) { c.end(timeout) }

// Close ends without a word.
func (c *Cluster) Close() { c.end(0) }

func (c *Cluster) end(timeout time.Duration) {
	c.ended.Do(func() {
		c.cancel()
		if c.pool != nil {
			c.pool.Leave(timeout)
		}
		ended := make(chan struct{})
		go func() {
			c.calls.close()
			c.done.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(closing):
			c.cfg.Log.Warningf("Cluster: a disk that does not answer is not waited for")
		}
	})
}

// Name returns this member's name.
func (c *Cluster) Name() string { return c.cfg.Name }

// Registers returns what is known now.
func (c *Cluster) Registers() register.State { return c.registers.state() }

// Problem says why registers are not durable here, nil if they are. With damaged
// the file on disk cannot be understood, and nothing is written over it.
func (c *Cluster) Problem() (damaged bool, err error) { return c.registers.problem() }

// Stats returns the counters of gossip, and how often what was refused.
func (c *Cluster) Stats() (gossip.Stats, map[string]uint64) {
	var s gossip.Stats
	if c.pool != nil {
		s = c.pool.Stats()
	}
	return s, c.log.counts()
}

// Encrypted reports whether gossip is.
func (c *Cluster) Encrypted() bool {
	return c.cfg.Gossip != nil && c.cfg.Gossip.KeyRing != nil && len(c.cfg.Gossip.KeyRing.Keys()) > 0
}

// runRetry writes what could not be written before. It has a goroutine of its own,
// because the disk may hang.
func (c *Cluster) runRetry() {
	tick := time.NewTicker(upkeep)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
			if err := c.registers.save(); err != nil && c.cfg.Disk != nil {
				c.log.Warningf("disk", "Registers: %s", err)
			}
			c.known.save(c.members(), c.reports.proven(), c.reports.announced())
		}
	}
}

// upkeep is how often what nobody asks for is done: seals looked through, files
// that could not be written tried again.
const upkeep = time.Second

func (c *Cluster) runUpkeep() {
	tick := time.NewTicker(upkeep)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		if n%60 == 0 {
			c.reseal()
		}
		if c.reports.age(time.Now(), c.fresh()) {
			c.cfg.Changed()
		}
	}
}
