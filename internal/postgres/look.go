package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// facts are what one look saw.
type facts struct {
	// Exactly one of these, or err says why it could not be looked at.
	primary, recovery, stopped bool

	err      error // nobody answers as it should, or the stopped server's files are bad
	starting bool  // somebody does, and says that it cannot be connected to now

	readOnly   bool // default_transaction_read_only
	guarded    bool // standby.signal is there
	restore    bool // recovery.signal is there, and no standby.signal
	promoting  bool // a promotion was asked for, and its end was not seen
	system     string
	timeline   uint32
	segment    uint64 // the size of one, in bytes
	written    evidence.LSN
	received   evidence.LSN
	replayed   evidence.LSN
	streaming  bool
	follows    string // "": in recovery, and neither streams nor restores from anywhere
	lastReplay time.Time

	receiver *receiver
	control  *control // of a stopped server
	noData   bool     // of which there is none

	rejoin    *rejoin // one that was not finished
	rejoinErr error   // or that cannot be read

	asked *answer // of the source, if it was asked and is a primary
	// local is this server's history, and fork where it leaves the source's; diverged
	// says that it has something behind it. All that only where both are known.
	local    history
	fork     branch
	compared bool
	diverged bool
	twin     bool // the source's timeline of the same number and place is another one
	// unsure: it streams the very timeline that it made itself, and nobody has said yet
	// whether that is not a twin.
	unsure bool

	origin *origin // of its timeline, if that is news
}

// receiver is what the walreceiver says.
type receiver struct {
	status   string
	timeline uint32
	end      evidence.LSN // the primary's, as it said last
	at       time.Time    // when it said so first, by the primary's clock
	heard    time.Time    // the last message, by this host's clock
	self     bool         // it may be connected to this very server
	own      bool         // it is
}

// look looks at this host alone; of the source it knows what ask was told. Looks are
// made one at a time; ctx bounds the waiting, too.
func (s *Service) look(ctx context.Context) *facts {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookTimeout)
	defer cancel()
	select {
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	case <-ctx.Done():
		return &facts{err: errors.New("the last look has not ended")}
	}
	f := s.lookHere(ctx)
	s.mu.Lock()
	if a := s.answer; a != nil && time.Since(a.asked) < answerAge {
		f.asked = a
	}
	s.mu.Unlock()
	s.compare(f)
	f.origin = s.nextOrigin(f)
	kept := s.origins()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.origin != nil {
		s.known.addOrigin(f.origin, kept)
		s.dirty = true
	}
	s.follower = f.recovery || f.stopped
	if f.system != "" {
		s.system = f.system
	}
	s.learn(f)
	return f
}

// lookHere looks at this host.
func (s *Service) lookHere(ctx context.Context) *facts {
	f := &facts{guarded: s.exists(standbySignal)}
	f.restore = !f.guarded && s.exists(recoverySignal)
	f.rejoin, f.rejoinErr = readRejoin(s.cfg.Disk)
	if err := s.query(ctx, f); err != nil {
		f.err = fmt.Errorf("looking at PostgreSQL: %w", err)
		f.starting = starting(err)
		var wrong *wrongServerError
		if errors.As(err, &wrong) {
			return f
		}
		s.lookStopped(ctx, f)
	}
	return f
}

// lookStopped finds out whether a server that does not answer is stopped.
func (s *Service) lookStopped(ctx context.Context, f *facts) {
	pids, err := processes(s.cfg.Data)
	if err != nil {
		f.err = errors.Join(f.err, err)
		return
	}
	if len(pids) > 0 {
		return
	}
	c, err := s.readControl(ctx)
	if err != nil {
		_, missing := os.Stat(filepath.Join(s.cfg.Data, "PG_VERSION"))
		f.noData = errors.Is(missing, os.ErrNotExist)
		f.stopped, f.starting, f.err = true, false, err
		return
	}
	f.stopped, f.starting, f.err = true, false, nil
	f.control, f.system = c, c.system
	end, timeline := c.end()
	f.timeline = timeline
	switch {
	case c.standby():
		f.received, f.replayed = end, end
	case c.clean():
		f.written = end
	}
}

// wrongServerError: the socket is another server's.
type wrongServerError struct{ socket, has, want string }

func (e *wrongServerError) Error() string {
	return fmt.Sprintf("the server at %s has the data directory %s, and data is %s: socket, port and data have to be of one server", e.socket, e.has, e.want)
}

// lookSQL works on a primary and on a standby. A server's timeline in the control file
// is the one of its last checkpoint, which comes some time after a promotion.
const lookSQL = `
SELECT r.recovery,
       current_setting('data_directory'),
       current_setting('default_transaction_read_only')::bool,
       s.system_identifier::text,
       CASE WHEN r.recovery THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
       CASE WHEN r.recovery THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       greatest(c.timeline_id, v.min_recovery_end_timeline),
       pg_last_wal_receive_lsn()::text,
       pg_last_wal_replay_lsn()::text,
       pg_last_xact_replay_timestamp(),
       w.status, w.received_tli, w.latest_end_lsn::text, w.latest_end_time, w.last_msg_receipt_time,
       current_setting('primary_conninfo') || current_setting('restore_command'),
       i.bytes_per_wal_segment,
       CASE WHEN w.sender_port = current_setting('port')::int THEN ARRAY(SELECT coalesce(host(client_addr), '') FROM pg_stat_replication) END
FROM (SELECT pg_is_in_recovery() AS recovery OFFSET 0) r
     CROSS JOIN pg_control_system() s CROSS JOIN pg_control_checkpoint() c CROSS JOIN pg_control_recovery() v CROSS JOIN pg_control_init() i
     LEFT JOIN pg_stat_wal_receiver w ON true`

// query asks the server, over the kept connection; again over a new one if that was
// from before a restart.
func (s *Service) query(ctx context.Context, f *facts) error {
	kept := s.conn != nil
	err := s.queryOnce(ctx, f)
	if err == nil || ctx.Err() != nil || !kept {
		return err
	}
	return s.queryOnce(ctx, f)
}

func (s *Service) queryOnce(ctx context.Context, f *facts) (err error) {
	if s.conn == nil {
		if s.conn, err = s.connect(ctx, s.cfg.Socket); err != nil {
			s.conn = nil
			return err
		}
	}
	defer func() {
		if err != nil {
			closeConn(s.conn.PgConn())
			s.conn = nil
		}
	}()
	return s.scan(s.conn.QueryRow(ctx, lookSQL), f)
}

func (s *Service) scan(row pgx.Row, f *facts) error {
	var (
		recovery, readOnly                                  bool
		dir, system                                         string
		flushed, file, receive, replay, status, receiverEnd *string
		controlTimeline, segment                            int64
		receiverTimeline                                    *int64
		lastReplay, endTime, heard                          *time.Time
		clients                                             []string // of a server with the sender's port
	)
	err := row.Scan(&recovery, &dir, &readOnly, &system, &flushed, &file, &controlTimeline, &receive, &replay, &lastReplay,
		&status, &receiverTimeline, &receiverEnd, &endTime, &heard, &f.follows, &segment, &clients)
	if err != nil {
		return err
	}
	if !sameFile(dir, s.cfg.Data) {
		return &wrongServerError{s.cfg.Socket + "/.s.PGSQL." + strconv.Itoa(int(s.cfg.Port)), dir, s.cfg.Data}
	}
	position := func(v *string) (l evidence.LSN) {
		if v != nil && err == nil {
			l, err = parseLSN(*v)
		}
		return l
	}
	f.primary, f.recovery = !recovery, recovery
	f.readOnly, f.system, f.timeline, f.segment = readOnly, system, uint32(controlTimeline), uint64(segment)
	if f.primary {
		f.written = position(flushed)
		if file != nil {
			tli, err := strconv.ParseUint(*file, 16, 32)
			if err != nil {
				return fmt.Errorf("timeline: %w", err)
			}
			f.timeline = uint32(tli)
		}
		return err
	}
	f.readOnly = false
	// Until the walreceiver has received something, receive is where it began: not more
	// than was replayed.
	f.replayed = position(replay)
	f.received = max(position(receive), f.replayed)
	if lastReplay != nil {
		f.lastReplay = *lastReplay
	}
	if status != nil {
		r := &receiver{status: *status, end: position(receiverEnd), self: len(clients) > 0, own: slices.ContainsFunc(clients, ofThisHost)}
		if receiverTimeline != nil {
			r.timeline = uint32(*receiverTimeline)
		}
		if endTime != nil {
			r.at = *endTime
		}
		if heard != nil {
			r.heard = *heard
		}
		f.receiver, f.streaming = r, r.status == "streaming" && !r.own
		f.timeline = max(f.timeline, r.timeline)
	}
	if !f.streaming && segment > 0 {
		f.timeline = max(f.timeline, s.walTimeline(f.received, uint64(segment)))
	}
	return err
}

// ofThisHost reports whether a walsender's client is on this host, "" being its socket.
// A former primary that starts while its own address is still the camaster's streams from
// itself, and would for ever.
func ofThisHost(client string) bool {
	ip := net.ParseIP(client)
	if ip == nil || ip.IsLoopback() {
		return true
	}
	addresses, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// walTimeline is the timeline of the log that has a position, as the names of its files
// say; 0 if none has it. A standby's control file says so only some time after it
// followed another timeline, and its walreceiver ends with the primary.
func (s *Service) walTimeline(at evidence.LSN, segment uint64) uint32 {
	names, err := readNames(s.path("pg_wal"))
	if err != nil || at == 0 {
		return 0
	}
	want := segmentName(branch{0, at - 1}, segment)
	best := uint64(0)
	for _, name := range names {
		if len(name) == len(want) && name[8:] == want[8:] {
			if tli, err := strconv.ParseUint(name[:8], 16, 32); err == nil {
				best = max(best, tli)
			}
		}
	}
	return uint32(best)
}

// compare says where this server's history leaves the source's.
func (s *Service) compare(f *facts) {
	var end evidence.LSN
	switch {
	case f.recovery:
		end = f.received
	case f.stopped && f.control != nil && (f.control.clean() || f.control.standby()):
		end, _ = f.control.end()
	default:
		return // it is not known where its log ends
	}
	origins := s.origins()
	if n := len(origins); n > 0 && f.streaming && origins[n-1].Own && origins[n-1].Timeline == f.receiver.timeline {
		f.unsure = f.asked == nil || !f.asked.origin.same(origins[n-1])
	}
	if f.asked == nil || f.asked.system != f.system {
		return
	}
	local, err := s.localHistory(f.timeline, end, f.asked.history)
	if err != nil {
		return // a history that is damaged proves nothing; the server will say so
	}
	at, follows := fork(local, f.asked.history)
	origins = slices.DeleteFunc(origins, func(o *origin) bool { return !o.in(local) })
	switch o := newestIn(f.asked.history, origins); {
	case o != nil && o.twin(f.asked):
		at, follows, f.twin = local.before(o.Timeline), false, true
	case o != nil && o.Own && !f.streaming && !f.asked.origin.same(o):
		return // not known, and it is worth to know
	case f.streaming:
		return // the source itself says that it can
	}
	f.local, f.fork, f.compared, f.diverged = local, at, true, !follows
}

// localHistory is this server's own. Where its file is missing, which a copy does not
// need, the source's has to do, as far as the timeline is one of its.
func (s *Service) localHistory(timeline uint32, end evidence.LSN, source history) (history, error) {
	if timeline <= 1 {
		return history{{timeline, end}}, nil
	}
	data, err := readLimited(filepath.Join(s.cfg.Data, "pg_wal", historyName(timeline)))
	if errors.Is(err, os.ErrNotExist) {
		for i, b := range source {
			if b.Timeline == timeline {
				return append(source[:i:i], branch{timeline, end}), nil
			}
		}
		return history{{timeline, end}}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseHistory(string(data), timeline, end)
}

// learn takes in what the look says of the primary. s.mu is held.
func (s *Service) learn(f *facts) {
	now := time.Now()
	k := &s.known
	changed := false
	switch {
	case f.primary:
		k.marks = nil
	case f.recovery && !f.diverged && !f.unsure: // else what is heard is of another log
		if r := f.receiver; r != nil && r.end > 0 && !r.self {
			changed = k.hear(f.system, r.timeline, r.end, now) || changed
			if s.answer == nil && !r.at.IsZero() {
				at := r.at
				if r.heard.Before(at) {
					at = r.heard
				}
				k.note(mark{at.Add(-streamMargin), r.timeline, r.end})
			}
		}
		changed = k.reach(f.timeline, f.received) || changed
	}
	if !k.Promoting.IsZero() && (f.primary || f.stopped) {
		k.Promoting, changed = time.Time{}, true
	}
	f.promoting = f.recovery && (!k.Promoting.IsZero() || s.exists("promote"))
	s.dirty = s.dirty || changed
}
