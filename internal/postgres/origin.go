package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
// timeline.c). Here
//
//   - a promotion passes over the numbers of which this host has heard (takeTimelines);
//   - and where it had not heard, twins are told apart by how they begin: the first record
//     of each has the time of its promotion (xl_end_of_recovery, in microseconds).

// origin is how the timeline began that this server made when it was promoted.
type origin struct {
	Timeline uint32       `json:"timeline"`
	At       evidence.LSN `json:"at"`  // where it left the one before
	Log      []byte       `json:"log"` // its first bytes
	// Filed is when the timeline's history file was written here. Another promotion's
	// timeline comes, by a backup or pg_rewind, with another file. A walreceiver brings
	// its log alone, and writes it over what was here.
	Filed time.Time `json:"filed"`
}

// originSize is how much of a timeline's first log is kept, in bytes: the first record
// (50), what may come before it (a page's header, a change of full_page_writes, 24 to 70),
// and no more, for it has to be there directly after the promotion.
const originSize = 256

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

// readOrigin is the origin of the timeline that a primary made, up to which place it has
// written; nil if it made none, or its log is no longer there.
func (s *Service) readOrigin(timeline uint32, written evidence.LSN, segment uint64) *origin {
	local, err := s.localHistory(timeline, written, nil)
	if err != nil || len(local) < 2 || segment == 0 {
		return nil
	}
	o := &origin{Timeline: timeline, At: local[len(local)-2].Until, Filed: s.filed(timeline)}
	// The rest of a segment is in the next one, if the record is: then it is not needed.
	within := uint64(o.At) % segment
	if written <= o.At {
		return nil
	}
	n := min(uint64(written-o.At), originSize, segment-within)
	f, err := os.OpenFile(s.path(filepath.Join("pg_wal", segmentName(branch{timeline, o.At}, segment))), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	o.Log = make([]byte, n)
	if _, err := f.ReadAt(o.Log, int64(within)); err != nil {
		return nil
	}
	return o
}

// learnOrigin keeps the origin of a primary's timeline. s.mu is held.
func (s *Service) learnOrigin(f *facts) (changed bool) {
	if o := s.known.Origin; f.timeline <= 1 || o != nil && o.Timeline == f.timeline && o.Filed.Equal(s.filed(f.timeline)) {
		return false
	}
	o := s.readOrigin(f.timeline, f.written, f.segment)
	if o == nil && s.known.Origin == nil {
		return false
	}
	s.known.Origin = o
	return true
}

// ownOrigin is the origin of a timeline of this server's history, if it made that itself
// and the files are still those; else nil.
func (s *Service) ownOrigin(local history) *origin {
	s.mu.Lock()
	o := s.known.Origin
	s.mu.Unlock()
	if o == nil || !o.in(local) || !o.Filed.Equal(s.filed(o.Timeline)) {
		return nil
	}
	return o
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
// place. A source that no longer has the log of its beginning can have followed o and been
// promoted since; if it writes on that very timeline, it made that itself.
func (o *origin) twin(a *answer) bool {
	switch {
	case !o.in(a.history):
		return false
	case a.origin == nil:
		return a.history.end().Timeline == o.Timeline
	}
	n := min(len(a.origin), len(o.Log))
	return !bytes.Equal(a.origin[:n], o.Log[:n])
}

// origin asks for the first bytes of a timeline of the source's. It returns nil without an
// error if the source no longer has them.
func (u *upstream) origin(ctx context.Context, o *origin, h history) ([]byte, error) {
	if o == nil || !o.in(h) {
		return nil, nil
	}
	if k := u.asked; k != nil && k.Timeline == o.Timeline && k.At == o.At {
		return k.Log, nil
	}
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
		return nil, fmt.Errorf("asking how timeline %d began: %w", o.Timeline, err)
	}
	u.asked = &origin{Timeline: o.Timeline, At: o.At, Log: log}
	return log, nil
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

// maxTaken bounds how many numbers a promotion passes over. Each takes a small file, and
// of more than a few nobody has heard the truth.
const maxTaken = 64

// takeTimelines has the next promotion pass over the timelines that this host has heard
// of, by what PostgreSQL looks for: their history files. Such a file has no line but a
// comment, which is a history that comes from nowhere, and which nothing follows.
func (s *Service) takeTimelines(f *facts) error {
	s.mu.Lock()
	heard, system := s.known.Timeline, s.known.System
	s.mu.Unlock()
	if system != f.system || heard <= f.timeline {
		return nil
	}
	if heard-f.timeline > maxTaken {
		return fmt.Errorf("timelines up to %d were heard of, and this server is on %d: more than %d are not passed over", heard, f.timeline, maxTaken)
	}
	for timeline := f.timeline + 1; timeline <= heard; timeline++ {
		path := s.path(filepath.Join("pg_wal", historyName(timeline)))
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		comment := fmt.Sprintf("# timeline %d was made on another host; kept free here by puppetsrv-member\n", timeline)
		if err := replaceFile(path, []byte(comment)); err != nil {
			return fmt.Errorf("keeping timeline %d free: %w", timeline, err)
		}
	}
	return nil
}
