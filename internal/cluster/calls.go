package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Kinds of seals.
const (
	kindCall  = "call"
	kindReply = "reply"
)

// callTimeout is how long a live member is waited for.
const callTimeout = 3 * time.Second

// call asks a member to do something. Only nodes may, but for what forAll says.
type call struct {
	ID   uint64    `json:"id"`
	From string    `json:"from"`
	To   string    `json:"to"`
	Boot uint64    `json:"boot"` // with Seq it is used once
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Op   string    `json:"op"`
	Arg  []byte    `json:"arg,omitempty"`
}

// reply is the answer to a call, or to entries.
type reply struct {
	ID    uint64          `json:"id"`
	From  string          `json:"from"`
	To    string          `json:"to"`
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Answer is what became of a call to one member.
type Answer struct {
	Name string
	// Err is nil if it did what was asked.
	Err   error
	After time.Duration
	body  json.RawMessage
	who   string // the certname that sealed it
}

// errNoAnswer is the outcome of a call that was not answered in time.
var errNoAnswer = errors.New("no answer in time")

// calls are those that wait for replies.
type calls struct {
	mu      sync.Mutex
	waiting map[waiter]waiting
	seq     uint64
	seen    map[string]*made     // calls of others that were made, by caller
	posting int                  // messages that nobody waits for, under way
	handed  map[string]time.Time // when members were last sent what they lack
	closed  bool
	done    sync.WaitGroup
}

// maxPosting bounds the messages that are under way without being waited for. What is
// not sent then, the next exchange of summaries makes up for.
const maxPosting = 512

type waiter struct {
	id   uint64
	from string // whose reply
}

type waiting struct {
	reply chan sealedReply
	node  bool // only a node's counts
}

type sealedReply struct {
	reply
	who string
}

func newCalls() *calls {
	return &calls{handed: make(map[string]time.Time), waiting: make(map[waiter]waiting), seen: make(map[string]*made)}
}

func (cs *calls) close() {
	cs.mu.Lock()
	cs.closed = true
	cs.mu.Unlock()
	cs.done.Wait()
}

// ask sends each member what build makes for it and gives out its answer, with node
// only that of a node. The channel is closed after the last one; nobody need wait for it.
func (c *Cluster) ask(members []gossip.Member, node bool, build func(id uint64, to string) (*message, error)) <-chan Answer {
	answers := make(chan Answer, len(members))
	cs := c.calls
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		close(answers)
		return answers
	}
	var all sync.WaitGroup
	start := time.Now()
	for _, m := range members {
		if m.Status != gossip.Alive {
			answers <- Answer{Name: m.Name, Err: fmt.Errorf("%s since %s", m.Status, m.Since.UTC().Format(time.RFC3339))}
			continue
		}
		w := waiter{rand.Uint64() | 1, m.Name}
		ch := make(chan sealedReply, 1)
		cs.waiting[w] = waiting{ch, node}
		all.Add(1)
		cs.done.Go(func() {
			defer all.Done()
			ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
			defer cancel()
			a := Answer{Name: m.Name}
			msg, err := build(w.id, m.Name)
			if err == nil {
				err = c.send(ctx, m.Name, msg)
			}
			var r sealedReply
			if err == nil {
				select {
				case r = <-ch:
				case <-ctx.Done():
					err = errNoAnswer
				}
			}
			if err == nil && r.Error != "" {
				err = errors.New(r.Error)
			}
			a.Err, a.After, a.body, a.who = err, time.Since(start), r.Body, r.who
			cs.mu.Lock()
			delete(cs.waiting, w)
			cs.mu.Unlock()
			answers <- a
		})
	}
	cs.done.Go(func() { all.Wait(); close(answers) })
	return answers
}

// send sends a message to one member.
func (c *Cluster) send(ctx context.Context, to string, m *message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.pool.Send(ctx, to, data)
}

// post sends a message to each of some members, and does not wait.
func (c *Cluster) post(members []gossip.Member, m *message) {
	data, err := json.Marshal(m)
	if err != nil {
		c.cfg.Log.Errorf("Cluster: %s", err)
		return
	}
	if len(data) > gossip.MaxMessage {
		c.log.Warningf("large", "Cluster: a message of %d bytes is not sent: at most %d", len(data), gossip.MaxMessage)
		return
	}
	cs := c.calls
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return
	}
	for _, to := range members {
		if cs.posting >= maxPosting {
			c.log.Warningf("posting", "Cluster: messages are not sent, because %d are under way", maxPosting)
			return
		}
		cs.posting++
		cs.done.Go(func() {
			defer func() { cs.mu.Lock(); cs.posting--; cs.mu.Unlock() }()
			ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
			defer cancel()
			if err := c.pool.Send(ctx, to.Name, data); err != nil {
				c.cfg.Log.Debugf("Cluster: %s", err)
			}
		})
	}
}

// replyTo answers a call.
func (c *Cluster) replyTo(to string, id uint64, body any, failure error) {
	r := reply{ID: id, From: c.cfg.Name, To: to}
	if failure != nil {
		r.Error = failure.Error()
	}
	if body != nil {
		r.Body, _ = json.Marshal(body)
	}
	sealed, err := c.say(kindReply, r)
	if err != nil {
		c.log.Warningf("reply", "Cluster: cannot answer %s: %s", to, err)
		return
	}
	c.post([]gossip.Member{{Name: to}}, &message{Reply: sealed})
}

// takeReply gives a reply to whoever waits for it.
func (c *Cluster) takeReply(s *trust.Sealed) {
	var r reply
	who, err := c.open(kindReply, s, &r, func(who string) error { return c.speaksFor(who, r.From) })
	if err != nil {
		c.log.Refused("reply", "Cluster: a reply in the name of %.100q is refused: %s", r.From, err)
		return
	}
	if r.To != c.cfg.Name {
		return
	}
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	w, ok := c.calls.waiting[waiter{r.ID, r.From}]
	if !ok {
		return
	}
	// What a member says that it is proves nothing: see meta.
	if w.node && !c.policy.Load().Signers(who) {
		c.log.Refused("reply", "Cluster: %.100q acknowledges a register, and %s is no node: `admin_allow sign %s` would make it one", r.From, who, who)
		return
	}
	select {
	case w.reply <- sealedReply{r, who}:
	default: // twice
	}
}

// skew is how old a call may be, by its clock and ours.
const skew = 10 * time.Minute

// call asks all other known members, masters too.
func (c *Cluster) call(op string, arg []byte) <-chan Answer {
	return c.callThese(c.knownMembers(), false, op, arg)
}

// callThese asks some members; with node only a node's answer counts.
func (c *Cluster) callThese(members []gossip.Member, node bool, op string, arg []byte) <-chan Answer {
	return c.ask(members, node, func(id uint64, to string) (*message, error) {
		c.calls.mu.Lock()
		c.calls.seq++
		seq := c.calls.seq
		c.calls.mu.Unlock()
		s, err := c.say(kindCall, call{ID: id, From: c.cfg.Name, To: to, Boot: c.known.boot(), Seq: seq, Time: time.Now(), Op: op, Arg: arg})
		return &message{Call: s}, err
	})
}

// takeCall does what a node asks for. A call is done once, and not much later than
// it was made: who has the gossip key could send it again.
func (c *Cluster) takeCall(s *trust.Sealed) {
	var cl call
	who, err := c.open(kindCall, s, &cl, func(who string) error {
		if forAll(cl.Op) {
			return c.speaksFor(who, cl.From)
		}
		if !c.policy.Load().Signers(who) {
			return fmt.Errorf("%s is no node: `admin_allow sign %s` would make it one", who, who)
		}
		return nil
	})
	if err == nil && cl.To != c.cfg.Name {
		return
	}
	sealed := err == nil
	if err == nil {
		err = timely(cl.Time)
	}
	if err == nil && cl.Time.Before(c.started) {
		err = errors.New("it was made before this member started, which may have done it already")
	}
	if err == nil {
		err = c.calls.once(cl.From, cl.Boot, cl.Seq)
	}
	if err != nil {
		c.log.Refused("call", "Cluster: a call in the name of %.100q is refused: %s", cl.From, err)
		if sealed {
			c.replyTo(cl.From, cl.ID, nil, fmt.Errorf("refused: %w", err))
		}
		return
	}
	if cl.Op != opListKeys && !forAll(cl.Op) {
		c.cfg.Log.Infof("Cluster: %s asks for %s %s", who, cl.Op, about(cl.Op, cl.Arg))
	}
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if c.calls.closed {
		return
	}
	c.calls.done.Go(func() { // it writes a file
		body, err := c.operate(c.ctx, cl.From, cl.Op, cl.Arg)
		c.replyTo(cl.From, cl.ID, body, err)
	})
}

// timely says no to what was said long ago, by its own time.
func timely(at time.Time) error {
	if d := time.Since(at); d > skew || d < -skew {
		return fmt.Errorf("it was made %v ago, or the clocks differ by that", d.Round(time.Second))
	}
	return nil
}

// made are the calls of one start of a caller that were made. They may come in
// another order than they were sent.
type made struct {
	boot, newest uint64
	seqs         map[uint64]bool // the newest window
}

// window is how far behind the newest a call may come.
const window = 1024

// once says no to a call that was made before, or is much older than one that was.
func (cs *calls) once(from string, boot, seq uint64) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	m := cs.seen[from]
	switch {
	case m == nil && len(cs.seen) >= maxKnown:
		return errors.New("too many callers")
	case m == nil || boot > m.boot:
		m = &made{boot: boot, seqs: make(map[uint64]bool)}
		cs.seen[from] = m
	case boot < m.boot || m.seqs[seq] || seq+window <= m.newest:
		return errors.New("it was made before")
	}
	m.seqs[seq] = true
	m.newest = max(m.newest, seq)
	maps.DeleteFunc(m.seqs, func(s uint64, _ bool) bool { return s+window <= m.newest })
	return nil
}
