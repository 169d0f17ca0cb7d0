package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Two servers that are promoted at the same place, neither knowing of the other, give
// their timelines the same number, and by number and place the two histories are one:
// neither a walreceiver nor pg_rewind tells them apart. PostgreSQL avoids that where all
// share an archive, in which it finds the numbers that are taken (findNewestTimeLine,
// timeline.c). Here such twins are told apart by how they begin: the first record of each
// has the time of its promotion (xl_end_of_recovery, in microseconds).

// origin is how the timeline began that a server writes, or follows.
type origin struct {
	Own      bool         `json:"own,omitempty"` // this server made it, when it was promoted
	Timeline uint32       `json:"timeline"`
	At       evidence.LSN `json:"at"`  // where it left the one before
	Log      []byte       `json:"log"` // its first bytes
	// Filed is when the timeline's history file was written here. Where a backup or
	// pg_rewind brings a twin, it brings another file. A walreceiver brings the twin's log
	// alone (it keeps a file of that name), and writes it over what was here.
	Filed time.Time `json:"filed"`
}

// originSize is how much of a timeline's first log is kept, in bytes: the record of the end
// of recovery (48), and what may come before it (a page's header, a change of
// full_page_writes, up to 72). firstRecord is how much there has to be: directly after a
// promotion there is no more.
const (
	originSize  = 256
	firstRecord = 48
)

// historyName is the name of a timeline's history file.
func historyName(timeline uint32) string { return fmt.Sprintf("%08X.history", timeline) }

// filed is when a timeline's history file was written here; zero if there is none.
func (s *Service) filed(timeline uint32) time.Time {
	fi, err := os.Lstat(s.path(filepath.Join("pg_wal", historyName(timeline))))
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime().UTC()
}

// readOrigin is the origin of a timeline that is here up to a place; nil if its first record
// is not. gone says that it will not be, either.
func (s *Service) readOrigin(timeline uint32, until evidence.LSN, segment uint64) (found *origin, gone bool) {
	local, err := s.localHistory(timeline, until, nil)
	if err != nil || len(local) < 2 {
		return nil, true
	}
	o := &origin{Timeline: timeline, At: local[len(local)-2].Until, Filed: s.filed(timeline)}
	if o.size(segment) < firstRecord {
		return nil, true // it goes on in the next segment: once in hundreds of thousands of promotions
	}
	if until < o.At+firstRecord {
		return nil, false
	}
	n := min(uint64(until-o.At), o.size(segment))
	f, err := os.OpenFile(s.path(filepath.Join("pg_wal", segmentName(branch{timeline, o.At}, segment))), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	o.Log = make([]byte, n)
	if _, err := f.ReadAt(o.Log, int64(uint64(o.At)%segment)); err != nil {
		return nil, false
	}
	return o, false
}

// size is how long a whole Log is: it stays within one segment.
func (o *origin) size(segment uint64) uint64 {
	return min(originSize, segment-uint64(o.At)%segment)
}

// maxOrigins bounds how many are kept: one for each timeline of this server's.
const maxOrigins = 16

// nextOrigin is what a look adds to the origins: of the timeline that a primary writes, or a
// standby streams; nil if there is nothing new. A primary's grows until it is whole; a
// standby's is taken as a whole, and once, for what comes later may be a twin's. Looks are
// made one at a time.
func (s *Service) nextOrigin(f *facts) *origin {
	until := f.written
	switch {
	case f.timeline <= 1 || f.segment == 0:
		return nil
	case f.primary:
	case f.recovery && f.streaming && !f.diverged && !f.unsure && f.receiver.timeline == f.timeline:
		until = f.received
	default:
		return nil
	}
	var known *origin
	for _, o := range s.origins() {
		if o.Timeline == f.timeline {
			known = o
		}
	}
	if known != nil && (!f.primary || uint64(len(known.Log)) >= known.size(f.segment)) {
		return nil
	}
	none := origin{Timeline: f.timeline, Filed: s.filed(f.timeline)}
	if s.gone.Timeline == none.Timeline && s.gone.Filed.Equal(none.Filed) {
		return nil
	}
	o, gone := s.readOrigin(f.timeline, until, f.segment)
	if gone {
		s.gone = none
	}
	if o == nil || !f.primary && uint64(len(o.Log)) < o.size(f.segment) || known != nil && len(o.Log) <= len(known.Log) {
		return nil
	}
	o.Own = f.primary
	return o
}

// origins are those that are known and whose files are still those, the newest last.
func (s *Service) origins() []*origin {
	s.mu.Lock()
	all := slices.Clone(s.known.Origins)
	s.mu.Unlock()
	return slices.DeleteFunc(all, func(o *origin) bool { return !o.Filed.Equal(s.filed(o.Timeline)) })
}

// addOrigin keeps an origin; kept are those that are still good.
func (k *known) addOrigin(o *origin, kept []*origin) {
	kept = slices.DeleteFunc(kept, func(p *origin) bool { return p.Timeline == o.Timeline })
	kept = append(kept, o)
	slices.SortFunc(kept, func(a, b *origin) int { return cmp.Compare(a.Timeline, b.Timeline) })
	k.Origins = kept[max(0, len(kept)-maxOrigins):]
}

// newestIn is the newest of some origins that a history has; nil if none.
func newestIn(h history, all []*origin) *origin {
	for _, o := range slices.Backward(all) {
		if o.in(h) {
			return o
		}
	}
	return nil
}

// in reports whether a history has a timeline of the same number and place.
func (o *origin) in(h history) bool {
	for i := 1; i < len(h); i++ {
		if h[i].Timeline == o.Timeline && h[i-1].Until == o.At {
			return true
		}
	}
	return false
}

// twin reports whether the source's timeline is another one than o, of the same number and
// place. Of a source that no longer has the log of its beginning it is known only where
// both of them made it: the source did if it writes on that very timeline.
func (o *origin) twin(a *answer) bool {
	switch {
	case !a.origin.same(o):
		return false // not known: see facts.unsure
	case len(a.origin.Log) == 0:
		return o.Own && a.history.end().Timeline == o.Timeline
	}
	n := min(len(a.origin.Log), len(o.Log))
	return !bytes.Equal(a.origin.Log[:n], o.Log[:n])
}

// same reports whether two are of the same number and place.
func (o *origin) same(p *origin) bool {
	return o != nil && p != nil && o.Timeline == p.Timeline && o.At == p.At
}

// origin asks how the newest of some timelines began that the source has too, by number and
// place; nil if there is none. Log is empty if the source no longer has it.
func (u *upstream) origin(ctx context.Context, all []*origin, h history) (*origin, error) {
	o := newestIn(h, all)
	if o == nil {
		return nil, nil
	}
	if u.asked.same(o) && (len(u.asked.Log) >= len(o.Log) || len(u.asked.Log) == 0) {
		return u.asked, nil
	}
	if time.Now().Before(u.originNext) {
		return nil, u.originErr
	}
	got, err := u.readOrigin(ctx, o, h)
	if err != nil {
		u.originNext, u.originErr = time.Now().Add(lastPause), fmt.Errorf("asking the source how its timeline %d began: %w", o.Timeline, err)
		return nil, u.originErr
	}
	u.asked = got
	return got, nil
}

// readOrigin reads the first log of o's timeline at the source.
func (u *upstream) readOrigin(ctx context.Context, o *origin, h history) (*origin, error) {
	n := evidence.LSN(len(o.Log))
	if end := h.end(); end.Timeline == o.Timeline {
		n = min(n, end.Until-o.At)
	}
	cfg, err := sourceConfig(u.source, u.account)
	if err != nil {
		return nil, err
	}
	// A stream cannot be ended in good order at any place, so it has its own connection.
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	log, err := readStream(ctx, conn, branch{o.Timeline, o.At}, int(n))
	var gone *pgconn.PgError
	if errors.As(err, &gone) && gone.Code == "58P01" { // undefined_file: "requested WAL segment has already been removed"
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return &origin{Timeline: o.Timeline, At: o.At, Log: log}, nil
}

// readStream is the log from a place on, n bytes of it, or fewer if the timeline ends
// before (protocol-replication.html, START_REPLICATION; XLogData is 'w', three int64 and
// the log).
func readStream(ctx context.Context, conn *pgconn.PgConn, from branch, n int) ([]byte, error) {
	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", formatLSN(from.Until), from.Timeline)})
	if err := conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	var log []byte
	for len(log) < n {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return log, nil
		case *pgproto3.CopyData:
			const header = 1 + 3*8
			if len(m.Data) < header || m.Data[0] != 'w' {
				continue // a keepalive message
			}
			if at := evidence.LSN(binary.BigEndian.Uint64(m.Data[1:])); at != from.Until+evidence.LSN(len(log)) {
				return nil, fmt.Errorf("the stream goes on at %s, and not at %s", formatLSN(at), formatLSN(from.Until+evidence.LSN(len(log))))
			}
			log = append(log, m.Data[header:]...)
		}
	}
	return log[:n], nil
}
