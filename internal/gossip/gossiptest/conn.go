package gossiptest

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxBuffered is how many bytes of a stream are under way, in one direction.
const maxBuffered = 256 << 10

// conn is one end of a stream.
type conn struct {
	host  *host
	other netip.AddrPort
	in    *flow
	out   *flow
}

func newConns(a, b *host) (near, far *conn) {
	ab, ba := newFlow(a, b), newFlow(b, a)
	return &conn{a, b.addr, ba, ab}, &conn{b, a.addr, ab, ba}
}

func (c *conn) Read(b []byte) (int, error)         { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error)        { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr                { return net.TCPAddrFromAddrPort(c.host.addr) }
func (c *conn) RemoteAddr() net.Addr               { return net.TCPAddrFromAddrPort(c.other) }
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.set(&c.in.readBy, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.set(&c.out.writeBy, t); return nil }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// Close lets what was written arrive, then the end.
func (c *conn) Close() error {
	c.host.remove(c)
	c.out.finish()
	c.in.abandon()
	return nil
}

// flow is one direction of a stream: reliable and ordered, or cut.
type flow struct {
	network  *Network
	from, to netip.AddrPort

	mu      sync.Mutex
	pieces  []piece
	bytes   int
	arrival time.Time     // of the last piece
	wake    chan struct{} // closed at the next change
	readBy  time.Time     // deadlines; zero: none
	writeBy time.Time
	done    bool // the writer has ended it
	left    bool // the reader has closed
	broken  bool // a piece was lost for good
}

type piece struct {
	data []byte
	at   time.Time // not to be read before
	err  error     // in place of data: the end
}

func newFlow(from, to *host) *flow {
	return &flow{network: from.network, from: from.addr, to: to.addr, wake: make(chan struct{})}
}

// stir wakes all who wait. The caller holds mu.
func (f *flow) stir() {
	close(f.wake)
	f.wake = make(chan struct{})
}

func (f *flow) set(deadline *time.Time, t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*deadline = t
	f.stir()
}

// send puts a piece on its way. The caller holds mu.
func (f *flow) send(p piece) {
	if f.broken {
		return
	}
	d, arrives := f.network.streamDelay()
	if !arrives {
		f.broken = true
		p = piece{err: syscall.ECONNRESET}
	}
	if at := time.Now().Add(d); at.After(f.arrival) {
		f.arrival = at
	}
	p.at = f.arrival
	f.pieces = append(f.pieces, p)
	f.bytes += len(p.data)
	f.stir()
}

func (f *flow) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done {
		f.send(piece{err: io.EOF})
		f.done = true
		f.stir()
	}
}

func (f *flow) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = true
	f.stir()
}

func (f *flow) write(b []byte) (n int, err error) {
	for len(b) > 0 {
		cut, changed := f.network.cut(f.from, f.to)
		f.mu.Lock()
		switch {
		case f.done:
			f.mu.Unlock()
			return n, net.ErrClosed
		case past(f.writeBy):
			f.mu.Unlock()
			return n, os.ErrDeadlineExceeded
		case (f.left || f.broken) && !cut:
			f.mu.Unlock()
			return n, syscall.EPIPE
		case f.bytes < maxBuffered:
			some := b[:min(len(b), maxBuffered-f.bytes)]
			f.send(piece{data: append([]byte(nil), some...)})
			f.mu.Unlock()
			n, b = n+len(some), b[len(some):]
			continue
		}
		wake, until := f.wake, f.writeBy
		f.mu.Unlock()
		wait(wake, changed, until)
	}
	return n, nil
}

func (f *flow) read(b []byte) (int, error) {
	for {
		cut, changed := f.network.cut(f.from, f.to)
		f.mu.Lock()
		until := f.readBy
		switch {
		case f.left:
			f.mu.Unlock()
			return 0, net.ErrClosed
		case past(f.readBy):
			f.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			f.mu.Unlock()
			return 0, nil
		case len(f.pieces) > 0 && !cut:
			p := &f.pieces[0]
			if p.at.After(time.Now()) {
				if until.IsZero() || p.at.Before(until) {
					until = p.at
				}
				break
			}
			if p.err != nil {
				f.mu.Unlock()
				return 0, p.err
			}
			n := copy(b, p.data)
			p.data = p.data[n:]
			f.bytes -= n
			if len(p.data) == 0 {
				f.pieces = f.pieces[1:]
			}
			f.stir()
			f.mu.Unlock()
			return n, nil
		}
		wake := f.wake
		f.mu.Unlock()
		wait(wake, changed, until)
	}
}

func past(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// wait returns when something may have changed, or at until.
func wait(wake, changed <-chan struct{}, until time.Time) {
	var timeout <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-wake:
	case <-changed:
	case <-timeout:
	}
}
