package postgres_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// link is a TCP proxy between two servers, whose cable can be pulled: then bytes stay
// where they are, and nobody is told.
type link struct {
	t        testing.TB
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	wake  *sync.Cond
	held  bool
	mute  bool // what the target says does not get through
	ended bool
	conns map[net.Conn]bool
}

func newLink(t testing.TB, to *cluster) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	l := &link{t: t, listener: listener, target: fmt.Sprintf("%s:%d", to.host, to.port), conns: map[net.Conn]bool{}}
	l.wake = sync.NewCond(&l.mu)
	l.wg.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

func (l *link) source() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=replicator", l.listener.Addr().(*net.TCPAddr).Port)
}

func (l *link) accept() {
	for {
		in, err := l.listener.Accept()
		if err != nil {
			return
		}
		if !l.add(in) {
			continue
		}
		l.wg.Go(func() {
			if !l.pass(false) {
				return
			}
			out, err := net.Dial("tcp", l.target)
			if err != nil {
				l.drop(in)
				return
			}
			if !l.add(out) {
				l.drop(in)
				return
			}
			l.wg.Go(func() { l.copy(out, in, false) })
			l.copy(in, out, true)
		})
	}
}

// copy copies until an end closes; then both do.
func (l *link) copy(to, from net.Conn, back bool) {
	defer l.drop(to, from)
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.pass(back) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				l.pass(back) // the goodbye does not get through either
			}
			return
		}
	}
}

// pass waits while the cable is pulled; false at the end.
func (l *link) pass(back bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for (l.held || l.mute && back) && !l.ended {
		l.wake.Wait()
	}
	return !l.ended
}

func (l *link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *link) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(l.conns, c)
	}
}

// hold pulls the cable, or puts it in again.
func (l *link) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.wake.Broadcast()
}

// silence keeps back what the target says, and not what is said to it.
func (l *link) silence(mute bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = mute
	l.wake.Broadcast()
}

func (l *link) close() {
	l.listener.Close()
	l.mu.Lock()
	l.ended = true
	for c := range l.conns {
		c.Close()
	}
	l.wake.Broadcast()
	l.mu.Unlock()
	l.wg.Wait()
}

// ack is one row that a client was told is committed.
type ack struct {
	id  int
	at  time.Time // after it was told
	end uint64    // of the log then
}

// writer writes rows one after the other, and remembers what was acknowledged. It
// connects again where it cannot write, as PuppetDB does.
type writer struct {
	t      testing.TB
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	to   *cluster
	acks []ack
	grew chan struct{} // closed with the next one
}

// fillerSize is how long a row is, in bytes.
const fillerSize = 500

// filler is not compressed by PostgreSQL, nor kept elsewhere than in the row.
func filler() string {
	b := make([]byte, fillerSize)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return string(b)
}

func newWriter(t testing.TB, to *cluster) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{t: t, cancel: cancel, to: to, grew: make(chan struct{})}
	w.wg.Go(func() { w.write(ctx) })
	t.Cleanup(w.stop)
	return w
}

func (w *writer) write(ctx context.Context) {
	id := 0
	for ctx.Err() == nil {
		w.mu.Lock()
		dsn := w.to.dsn()
		w.mu.Unlock()
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		for ctx.Err() == nil {
			id++
			if _, err := conn.Exec(ctx, "INSERT INTO rows VALUES ($1, $2)", id, filler()); err != nil {
				break
			}
			at := time.Now()
			var end string
			if err := conn.QueryRow(ctx, "SELECT (pg_current_wal_flush_lsn() - '0/0')::text").Scan(&end); err != nil {
				end = "0"
			}
			var lsn uint64
			fmt.Sscan(end, &lsn)
			w.mu.Lock()
			w.acks = append(w.acks, ack{id, at, lsn})
			close(w.grew)
			w.grew = make(chan struct{})
			w.mu.Unlock()
		}
		closing, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		conn.Close(closing)
		cancel()
	}
}

// point sends the writer elsewhere with its next connection.
func (w *writer) point(to *cluster) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

// more waits for n more rows.
func (w *writer) more(n int) {
	w.t.Helper()
	deadline := time.After(patience)
	w.mu.Lock()
	want := len(w.acks) + n
	for len(w.acks) < want {
		grew := w.grew
		w.mu.Unlock()
		select {
		case <-grew:
		case <-deadline:
			w.t.Fatal("the writer gets nothing written")
		}
		w.mu.Lock()
	}
	w.mu.Unlock()
}

// stop ends it; what was acknowledged is returned.
func (w *writer) stop() {
	w.cancel()
	w.wg.Wait()
}

func (w *writer) all() []ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]ack(nil), w.acks...)
}
