// Package gossip is membership and message transport: who is in the cluster,
// who is alive, and how a message gets to another member. It is the only importer
// of memberlist, and it knows nothing of registers, DNS or certificates.
//
// It owns what memberlist leaves to its user, and what fails silently when it is
// left undone: a partition longer than GossipToTheDeadTime never heals unless
// somebody dials again (rejoin.go); memberlist's own list of members races with
// its updates (members.go); a slow receiver of messages holds up refutations, so
// that a live node is declared dead (inbox.go); any holder of the key may bring in
// any name (admission.go); a stalled peer blocks a sender for ever (transport.go).
//
// The key ring keeps strangers out and is no proof of who sent a message: who
// holds the key can send under any name. What must be proved has to be signed by
// the owner of the pool.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Limits of what is sent and of what is taken from others.
const (
	DefaultPort = 7946    // of a seed that names none; UDP and TCP
	MaxMeta     = 512     // bytes of Config.Meta: memberlist's own limit
	MaxMessage  = 1 << 20 // bytes of one message
	MaxState    = 8 << 20 // bytes of Delegate.State; memberlist's limit, with the list of members in it, is 20 MiB
	MaxMembers  = 16384   // names known at a time, whatever their status
	MaxName     = 253     // bytes of a member's name: RFC 1035, section 2.3.4, without the root
)

// Remember is for how long a dead member is shown and dialled, and one that left
// is shown.
const Remember = 24 * time.Hour

// label stands before each packet and stream and is authenticated with it, so
// that another user of memberlist on the same port and with the same key is not
// taken for a member. It is no secret.
const label = "puppetsrv"

// ErrClosed is returned for what is asked of a pool that has ended.
var ErrClosed = errors.New("the gossip pool has ended")

// Transport carries packets and streams. See gossiptest for one in memory.
//
// Its Shutdown must also end a dial that is under way.
type Transport = memberlist.NodeAwareTransport

// What a Transport carries and where to.
type (
	Packet  = memberlist.Packet
	Address = memberlist.Address
)

// Logger takes the pool's log lines. All methods may be called concurrently, and
// Debugf is called often.
type Logger interface {
	Debugf(format string, v ...any)
	Infof(format string, v ...any)
	Warningf(format string, v ...any)
	Errorf(format string, v ...any)
}

// Delegate is what the owner of a pool provides.
//
// Received, Merge and Changed are never called while a lock of memberlist is
// held: they may call the pool, but not Leave or Close, which wait for them.
// Received and Merge come from one goroutine, one at a time and in the order of
// arrival. A bounded queue stands before them: what a slow owner lets overflow is
// dropped and counted, and membership does not suffer. After Close or Leave has
// returned, no method is called any more.
type Delegate interface {
	// Received takes a message that another member sent. The callee owns it.
	Received(message []byte)
	// State returns the full state, at most MaxState bytes, for another member
	// to Merge. It is called concurrently with anything and must not call the
	// pool. What it returns must not be changed later.
	State() []byte
	// Merge takes another member's full state. The callee owns it.
	Merge(state []byte)
	// Changed says that what Members returns is no longer what it was. Calls
	// are put together: one stands for one or more changes. It must not block.
	Changed()
}

// Config is what a pool is started with.
type Config struct {
	// Name of this member: a host name in lower case without a trailing dot,
	// 1 to MaxName bytes. It is unique in the cluster.
	Name string
	// Bind is the address of the UDP and the TCP socket. Port 0 lets the system
	// choose. Anything but a loopback address needs a key ring.
	Bind netip.AddrPort
	// Advertise is the address that the others are told. Zero: as bound; where
	// that is 0.0.0.0, the first private address of this host. Port 0: as bound.
	Advertise netip.AddrPort
	// Join has the seeds, HOST or HOST:PORT. They are dialled, with a fresh look
	// at their addresses, for as long as they are not among the live members.
	Join []string
	// Profile has the time constants; all members should have the same.
	Profile Profile
	// KeyRing encrypts everything. Nil or empty: nothing is encrypted.
	KeyRing *KeyRing
	// Meta is told to all members; at most MaxMeta bytes.
	Meta []byte
	// Admit decides about each other member, at each news of it. Nil admits all.
	// It is called with locks held: it must not block, nor call the pool.
	Admit func(Member) error
	// Delegate is required.
	Delegate Delegate
	// Log may be nil.
	Log Logger
	// Transport carries everything in place of sockets; nothing is bound then.
	Transport Transport
	// Lookup resolves a seed's host. Nil: the resolver of the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// RejoinEvery is the time between two rounds of dialling who is missing,
	// give or take a quarter. 0: 2 s.
	RejoinEvery time.Duration
}

// Status is what is known of a member.
type Status int

const (
	Alive Status = iota
	Dead         // it no longer answers
	Left         // it said that it leaves, then ended
)

func (s Status) String() string {
	switch s {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("status %d", int(s))
}

// Member is a member as this one knows it. It is a copy.
//
// A suspected member is Alive: memberlist does not tell of a suspicion, and half
// of them are refuted.
type Member struct {
	Name    string
	Address netip.AddrPort
	Meta    []byte
	Status  Status
	Since   time.Time // of the status, by this host's clock
}

// checkName says what is wrong with a member's name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the name has %d bytes, the limit is %d", len(name), MaxName)
	case strings.HasSuffix(name, "."):
		return fmt.Errorf("the name %q ends in a dot; write it without", name)
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		case c >= 'A' && c <= 'Z':
			return fmt.Errorf("the name %q is not in lower case", name)
		default:
			return fmt.Errorf("the name %q is no host name: letters, digits, '-', '_' and '.' only", name)
		}
	}
	return nil
}

// check returns what is wrong with c, or nil.
func (c *Config) check() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if len(c.Meta) > MaxMeta {
		return fmt.Errorf("the metadata has %d bytes, the limit is %d", len(c.Meta), MaxMeta)
	}
	if c.Delegate == nil {
		return errors.New("no delegate")
	}
	if c.RejoinEvery < 0 {
		return fmt.Errorf("rejoin every %v: must not be negative", c.RejoinEvery)
	}
	if _, ok := profiles[c.Profile]; !ok {
		return fmt.Errorf("unknown profile %d", int(c.Profile))
	}
	for _, s := range c.Join {
		if _, err := parseSeed(s); err != nil {
			return err
		}
	}
	if c.Transport != nil {
		return nil
	}
	addr := c.Bind.Addr().Unmap()
	if !addr.IsValid() {
		return errors.New("no address to bind")
	}
	if !addr.IsLoopback() && c.KeyRing.empty() {
		return fmt.Errorf("gossip on %v would be readable and open to everyone in reach: name a key file, or bind a loopback address", c.Bind)
	}
	advertised := c.Advertise.Addr().Unmap()
	if advertised.IsValid() && advertised.IsUnspecified() {
		return fmt.Errorf("%v cannot be advertised: no member could dial it", c.Advertise)
	}
	if !advertised.IsValid() && addr.Is6() && addr.IsUnspecified() {
		return fmt.Errorf("gossip on %v needs an address to advertise", c.Bind)
	}
	return nil
}
