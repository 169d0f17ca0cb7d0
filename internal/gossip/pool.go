package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxSends is how many messages are on their way out at once; more wait.
const maxSends = 128

// Pool is this process's membership in the cluster. All methods may be called
// concurrently, also after Close.
type Pool struct {
	name     string
	delegate Delegate
	log      Logger
	list     *memberlist.Memberlist
	members  *members
	inbox    *inbox
	leaves   *leaves
	rejoin   *rejoiner
	limit    *limiter // of log lines about what others do
	count    counters
	sends    chan struct{}

	metaMu sync.Mutex // held over an update; memberlist reads its own node unlocked
	meta   atomicBytes

	admitMu sync.Mutex // guards admit; taken under memberlist's locks
	admit   func(Member) error

	ctx    context.Context // done when the pool ends
	cancel context.CancelFunc
	done   sync.WaitGroup // what the pool has started

	endMu sync.Mutex // held over the end
	ended bool

	callMu sync.RWMutex // held, for reading, over Delegate.State
	mute   bool         // no more calls
}

// Start binds the sockets, or takes the transport, and begins to look for the
// seeds. It does not wait for any: a pool alone is a cluster of one.
func Start(cfg Config) (*Pool, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	p := &Pool{
		name:     cfg.Name,
		delegate: cfg.Delegate,
		log:      cfg.Log,
		limit:    newLimiter(time.Minute),
		sends:    make(chan struct{}, maxSends),
		admit:    cfg.Admit,
	}
	if p.log == nil {
		p.log = silence{}
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.meta.store(cfg.Meta)
	p.members = newMembers(p.admitted)
	p.inbox = newInbox(cfg.Delegate, &p.count)
	p.leaves = newLeaves(p.members.living)

	conf := cfg.Profile.memberlist()
	conf.Name = cfg.Name
	conf.Logger = log.New(newLogWriter(p.log, &p.count), "", 0)
	if !cfg.KeyRing.empty() {
		conf.Keyring = cfg.KeyRing.ring
	}
	callbacks := callbacks{p}
	conf.Delegate, conf.Events, conf.Alive, conf.Conflict = callbacks, callbacks, callbacks, callbacks

	transport := cfg.Transport
	if transport == nil {
		s, err := newSockets(cfg.Bind, conf.Logger)
		if err != nil {
			p.cancel()
			return nil, fmt.Errorf("gossip: %w", err)
		}
		transport = s
		conf.BindAddr, conf.BindPort = cfg.Bind.Addr().Unmap().String(), s.GetAutoBindPort()
	} else {
		conf.BindPort = DefaultPort
	}
	conf.AdvertiseAddr, conf.AdvertisePort = "", conf.BindPort
	if cfg.Advertise.Addr().IsValid() {
		conf.AdvertiseAddr = cfg.Advertise.Addr().Unmap().String()
		if port := cfg.Advertise.Port(); port != 0 {
			conf.AdvertisePort = int(port)
		}
	}
	guarded := newGuard(transport, cfg.KeyRing != nil && len(cfg.KeyRing.Keys()) > 0, &p.count)
	conf.Transport = guarded

	list, err := memberlist.Create(conf)
	if err != nil {
		p.cancel()
		guarded.Shutdown()
		return nil, fmt.Errorf("gossip on %v as %q: %w", cfg.Bind, cfg.Name, err)
	}
	p.list = list
	p.done.Go(func() { p.inbox.deliver(p.ctx) })
	p.done.Go(func() { p.members.report(p.ctx, cfg.Delegate.Changed) })
	p.rejoin = newRejoiner(p, cfg)
	p.done.Go(func() { p.rejoin.run(p.ctx) })
	return p, nil
}

// Self returns this member.
func (p *Pool) Self() Member {
	m, _ := p.members.get(p.name)
	return m
}

// Members returns copies of all members, by name: this one, the living, and those
// that died or left within the last Remember. Those that Config.Admit refuses are
// not among them.
func (p *Pool) Members() []Member { return p.members.all() }

// Send sends a message to a living member over TCP. It returns nil when the
// message was written to the connection: that says nothing of its arrival. It
// takes 2 s to connect and 2 s to write at most. When ctx ends first, the message may
// still arrive.
func (p *Pool) Send(ctx context.Context, name string, message []byte) error {
	if len(message) > MaxMessage {
		return fmt.Errorf("sending to %s: the message has %d bytes, the limit is %d", name, len(message), MaxMessage)
	}
	m, ok := p.members.get(name)
	switch {
	case !ok:
		return fmt.Errorf("sending to %s: no such member", name)
	case m.Status != Alive:
		return fmt.Errorf("sending to %s: it is %v since %s", name, m.Status, m.Since.Format(time.RFC3339))
	}
	if err := p.begin(); err != nil {
		return fmt.Errorf("sending to %s: %w", name, err)
	}
	framed := frame(frameMessage, message)
	if name == p.name {
		p.received(framed)
		p.done.Done()
		return nil
	}
	select {
	case p.sends <- struct{}{}:
	case <-ctx.Done():
		p.done.Done()
		return fmt.Errorf("sending to %s: waiting for %d others: %w", name, maxSends, ctx.Err())
	case <-p.ctx.Done():
		p.done.Done()
		return fmt.Errorf("sending to %s: %w", name, ErrClosed)
	}
	// memberlist knows no context. What is given up ends by the deadline that
	// every stream has.
	sent := make(chan error, 1)
	go func() {
		defer p.done.Done()
		defer func() { <-p.sends }()
		sent <- p.list.SendReliable(&memberlist.Node{Name: name, Addr: m.Address.Addr().AsSlice(), Port: m.Address.Port()}, framed)
	}()
	select {
	case err := <-sent:
		if err != nil {
			return fmt.Errorf("sending to %s at %v: %w", name, m.Address, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sending to %s at %v: %w", name, m.Address, ctx.Err())
	}
}

// begin counts something that is started on behalf of a caller, for the end to
// wait for; done.Done ends it.
func (p *Pool) begin() error {
	p.callMu.RLock()
	defer p.callMu.RUnlock()
	if p.mute {
		return ErrClosed
	}
	p.done.Add(1)
	return nil
}

// Update takes what a configuration has changed. A member that admit refuses from
// now on is no longer shown, dialled or sent to, and its news are refused; its
// messages cannot be told from others' and are still delivered, for which the key
// ring must be changed. It is shown again at once when a later Update admits it.
func (p *Pool) Update(join []string, admit func(Member) error) error {
	if err := p.rejoin.setSeeds(join); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	p.admitMu.Lock()
	p.admit = admit
	p.admitMu.Unlock()
	p.members.judge()
	p.rejoin.hurry()
	return nil
}

// admitted asks Config.Admit about another member.
func (p *Pool) admitted(m Member) error {
	if m.Name == p.name {
		return nil
	}
	p.admitMu.Lock()
	admit := p.admit
	p.admitMu.Unlock()
	if admit == nil {
		return nil
	}
	return admit(m)
}

// SetMeta tells all members new metadata. It does not wait until they have it.
func (p *Pool) SetMeta(meta []byte) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("gossip: the metadata has %d bytes, the limit is %d", len(meta), MaxMeta)
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.done.Done()
	p.metaMu.Lock()
	defer p.metaMu.Unlock()
	if bytes.Equal(p.meta.load(), meta) {
		return nil
	}
	p.meta.store(meta)
	// Its only error is that the broadcast is not yet through.
	_ = p.list.UpdateNode(time.Millisecond)
	return nil
}

// Leave tells the others that this member leaves, for at most timeout, and then
// ends the pool as Close does. It may be called again, also concurrently and after
// Close. A timeout of 0 or less is Close.
func (p *Pool) Leave(timeout time.Duration) {
	p.end(func() {
		if timeout <= 0 {
			return
		}
		p.leaves.announce(p.name)
		if err := p.list.Leave(timeout); err != nil {
			p.log.Warningf("leaving the cluster: %v; the others will see this member as dead", err)
		}
	})
}

// Close ends the pool without a word: the others will see it as dead. It returns
// when nothing of it calls the delegate any more, and waits for a Leave under way.
func (p *Pool) Close() { p.end(func() {}) }

func (p *Pool) end(announce func()) {
	p.endMu.Lock()
	defer p.endMu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	announce()
	p.callMu.Lock()
	p.mute = true
	p.callMu.Unlock()
	p.members.stop()
	p.cancel()
	// Closes all connections, so that what is under way fails now. memberlist
	// logs an error and never returns one.
	_ = p.list.Shutdown()
	p.done.Wait()
}

// state is the delegate's, or nil where it is too large or the pool has ended.
func (p *Pool) state() []byte {
	p.callMu.RLock()
	defer p.callMu.RUnlock()
	if p.mute {
		return nil
	}
	s := p.delegate.State()
	if len(s) > MaxState {
		p.count.oversizedState.Add(1)
		if p.limit.allow("state") {
			p.log.Errorf("the state has %d bytes, the limit is %d: it is not sent to other members", len(s), MaxState)
		}
		return nil
	}
	return s
}

// frames are what a user message of memberlist begins with.
const (
	frameMessage byte = 0 // for Delegate.Received
	frameLeaving byte = 1 // the name of a member that is about to leave
)

func frame(kind byte, content []byte) []byte {
	return append([]byte{kind}, content...)
}

// received takes a user message off memberlist, which may reuse its bytes.
func (p *Pool) received(framed []byte) {
	if len(framed) == 0 {
		return
	}
	content := framed[1:]
	switch framed[0] {
	case frameMessage:
		if len(content) > MaxMessage {
			p.count.oversizedMessage.Add(1)
			return
		}
		p.inbox.put(slices.Clone(content), false)
	case frameLeaving:
		name := string(content)
		if name != p.name && p.members.leaving(name) {
			p.leaves.announce(name)
		}
	}
	// Anything else is of a newer release.
}

// merge takes another member's state off memberlist.
func (p *Pool) merge(state []byte) {
	if len(state) > MaxState {
		p.count.oversizedState.Add(1)
		if p.limit.allow("merge") {
			p.log.Errorf("a member's state of %d bytes is over the limit of %d: not merged", len(state), MaxState)
		}
		return
	}
	p.inbox.put(slices.Clone(state), true)
}

// newMember makes a member of what memberlist says, and refuses what cannot be
// one.
func newMember(n *memberlist.Node, status Status) (Member, error) {
	m := Member{Name: n.Name, Meta: bytes.Clone(n.Meta), Status: status, Since: time.Now()}
	if err := checkName(n.Name); err != nil {
		return m, err
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	addr = addr.Unmap()
	m.Address = netip.AddrPortFrom(addr, n.Port)
	if !ok || addr.IsUnspecified() || n.Port == 0 {
		return m, errors.New("its address is none")
	}
	if len(n.Meta) > MaxMeta {
		return m, fmt.Errorf("its metadata has %d bytes, the limit is %d", len(n.Meta), MaxMeta)
	}
	return m, nil
}
