package gossip

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	rejoinEvery = 2 * time.Second
	// lookupTimeout bounds the resolution of a seed.
	lookupTimeout = 2 * time.Second
	// lookAgain is how long the addresses of a seed whose members are all there
	// are good.
	lookAgain = time.Minute
	// perRound is how many missing members are dialled in a round, seeds aside.
	perRound = 8
	// maxDials is how many dials are under way at once.
	maxDials = 16
	// forgetTarget is when a dial is forgotten; by then all the dead had their turn.
	forgetTarget = 10 * time.Minute
	// maxSeedAddresses is how many addresses of a seed are dialled.
	maxSeedAddresses = 16
)

// seed is an entry of Config.Join.
type seed struct {
	host string // in lower case, without a trailing dot; or an IP address
	port uint16
}

// parseSeed reads HOST or HOST:PORT.
func parseSeed(s string) (seed, error) {
	bad := func() (seed, error) {
		return seed{}, fmt.Errorf("join %q: a HOST or HOST:PORT is needed", s)
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return seed{a.Unmap().String(), DefaultPort}, nil
	}
	host, port := s, uint64(DefaultPort)
	if h, p, err := net.SplitHostPort(s); err == nil {
		host = h
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return bad()
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return seed{a.Unmap().String(), uint16(port)}, nil
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if checkName(host) != nil {
		return bad()
	}
	return seed{host, uint16(port)}, nil
}

func (s seed) String() string { return net.JoinHostPort(s.host, strconv.Itoa(int(s.port))) }

// rejoiner dials who is missing, for ever: seeds that are not among the living,
// and members that died. memberlist does neither, so that a partition which lasts
// longer than GossipToTheDeadTime would never heal.
type rejoiner struct {
	pool   *Pool
	every  time.Duration
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	now    chan struct{} // asks for a round; holds one
	slots  chan struct{} // bounds what is under way
	busy   sync.WaitGroup

	mu      sync.Mutex
	seeds   []seed
	looking map[seed]bool     // being resolved
	known   map[seed]resolved // their latest addresses
	targets map[netip.AddrPort]*target
}

// resolved is what a seed's host was found to be.
type resolved struct {
	addrs []netip.AddrPort
	at    time.Time
}

// target is an address that was dialled.
type target struct {
	dialling bool
	last     time.Time // when the latest dial was due
	answered bool      // that one succeeded
	// generation of the membership at the answer. An address that answers and is
	// no member's (it is translated, or is this member's own by another name) is
	// dialled again when the membership has changed, or after lookAgain.
	generation uint64
}

func newRejoiner(p *Pool, cfg Config) *rejoiner {
	r := &rejoiner{
		pool:    p,
		every:   cfg.RejoinEvery,
		lookup:  cfg.Lookup,
		now:     make(chan struct{}, 1),
		slots:   make(chan struct{}, maxDials),
		looking: map[seed]bool{},
		known:   map[seed]resolved{},
		targets: map[netip.AddrPort]*target{},
	}
	if r.every == 0 {
		r.every = rejoinEvery
	}
	if r.lookup == nil {
		r.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	_ = r.setSeeds(cfg.Join) // checked with the configuration
	return r
}

// setSeeds replaces the seeds, or none of them where one is wrong.
func (r *rejoiner) setSeeds(join []string) error {
	var seeds []seed
	for _, s := range join {
		parsed, err := parseSeed(s)
		if err != nil {
			return err
		}
		if !slices.Contains(seeds, parsed) {
			seeds = append(seeds, parsed)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seeds = seeds
	maps.DeleteFunc(r.known, func(s seed, _ resolved) bool { return !slices.Contains(seeds, s) })
	return nil
}

// hurry asks for a round now.
func (r *rejoiner) hurry() {
	select {
	case r.now <- struct{}{}:
	default:
	}
}

// run makes a round at once and then every so often, until ctx ends.
func (r *rejoiner) run(ctx context.Context) {
	defer r.busy.Wait()
	r.hurry()
	timer := time.NewTimer(r.every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.now:
		}
		r.pool.members.expire()
		r.round(ctx)
		// Jitter: all members see the same partition heal.
		timer.Reset(r.every*3/4 + rand.N(r.every/2+1))
	}
}

// round starts the dials that are due. It does not wait for them: a host that
// does not answer must not hold up the others.
func (r *rejoiner) round(ctx context.Context) {
	var missing []Member
	// After a restart at another address the others hold on to the old one until
	// that is dead, and take no news from here. Nothing is missing then as seen
	// from here, and yet they must be told again.
	contested := r.pool.members.isContested()
	names, living := map[string]bool{}, map[netip.AddrPort]bool{}
	for _, m := range r.pool.Members() {
		switch {
		case m.Name == r.pool.name, m.Status == Alive && !contested:
			names[m.Name], living[m.Address] = true, true
		case m.Status != Left:
			missing = append(missing, m)
		}
	}
	now, generation := time.Now(), r.pool.members.since()
	r.mu.Lock()
	defer r.mu.Unlock()
	// Bounded by the slots and by what is marked as under way, so that neither
	// rounds nor seeds pile up.
	for _, s := range r.seeds {
		if names[s.host] || r.looking[s] || r.reached(s, living, generation, now) {
			continue
		}
		r.looking[s] = true
		r.start(ctx, func() { r.find(ctx, s, living) })
	}
	slices.SortFunc(missing, func(a, b Member) int { return r.last(a.Address).Compare(r.last(b.Address)) })
	dialled := 0
	for _, m := range missing {
		if dialled == perRound {
			break
		}
		if !living[m.Address] && r.claim(m.Address, now) {
			dialled++
			r.start(ctx, func() { r.dial(m.Name, m.Address, r.pool.log.Debugf) })
		}
	}
	maps.DeleteFunc(r.targets, func(_ netip.AddrPort, t *target) bool {
		return !t.dialling && now.Sub(t.last) > forgetTarget
	})
}

// start runs f as soon as a slot is free.
func (r *rejoiner) start(ctx context.Context, f func()) {
	r.busy.Go(func() {
		// Also when ctx has ended: f takes its mark away.
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ctx.Done():
		}
		f()
	})
}

// reached reports whether a seed needs no dial: all its addresses are those of
// living members, or have answered just so. The caller holds mu.
func (r *rejoiner) reached(s seed, living map[netip.AddrPort]bool, generation uint64, now time.Time) bool {
	k, ok := r.known[s]
	if !ok || len(k.addrs) == 0 || now.Sub(k.at) >= lookAgain {
		return false
	}
	for _, a := range k.addrs {
		t := r.targets[a]
		answered := t != nil && t.answered && t.generation == generation && now.Sub(t.last) < lookAgain
		if !living[a] && !answered {
			return false
		}
	}
	return true
}

// last returns when a dial to addr was last due. The caller holds mu.
func (r *rejoiner) last(addr netip.AddrPort) time.Time {
	if t := r.targets[addr]; t != nil {
		return t.last
	}
	return time.Time{}
}

// claim marks addr as being dialled, unless it is. The caller holds mu.
func (r *rejoiner) claim(addr netip.AddrPort, now time.Time) bool {
	t := r.targets[addr]
	if t == nil {
		t = &target{}
		r.targets[addr] = t
	}
	if t.dialling {
		return false
	}
	t.dialling, t.last = true, now
	return true
}

// find resolves a seed anew and starts a dial to each of its addresses that is no
// living member's.
func (r *rejoiner) find(ctx context.Context, s seed, living map[netip.AddrPort]bool) {
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.resolve(lookup, s)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.looking, s)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.pool.count.rejoinAttempts.Add(1)
		r.failed(s.String(), err, r.pool.log.Warningf)
		return
	}
	if slices.Contains(r.seeds, s) {
		r.known[s] = resolved{addrs, now}
	}
	for _, a := range addrs {
		if !living[a] && r.claim(a, now) {
			r.start(ctx, func() { r.dial(s.host, a, r.pool.log.Warningf) })
		}
	}
}

func (r *rejoiner) resolve(ctx context.Context, s seed) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s.host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, s.port)}, nil
	}
	found, err := r.lookup(ctx, s.host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address", s.host)
	}
	var addrs []netip.AddrPort
	for _, a := range found[:min(len(found), maxSeedAddresses)] {
		if a := netip.AddrPortFrom(a.Unmap(), s.port); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// dial exchanges the full state with whoever is at addr. The other side then
// knows this member, and each refutes what the other wrongly believes of it. The
// name is one for memberlist's RequireNodeNames; it is not compared with anything.
func (r *rejoiner) dial(name string, addr netip.AddrPort, logf func(string, ...any)) {
	r.pool.count.rejoinAttempts.Add(1)
	_, err := r.pool.list.Join([]string{name + "/" + addr.String()})
	generation := r.pool.members.since()
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[addr]
	t.dialling, t.answered, t.generation = false, err == nil, generation
	if err != nil && r.pool.ctx.Err() == nil {
		r.failed(name+" at "+addr.String(), err, logf)
	}
}

func (r *rejoiner) failed(whom string, err error, logf func(string, ...any)) {
	r.pool.count.rejoinFailures.Add(1)
	if r.pool.limit.allow("rejoin " + whom) {
		logf("joining %s: %s; trying again for ever", whom, oneLine(err))
	}
}

// oneLine makes a line of memberlist's list of errors.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "1 error occurred:")), " ")
}
