package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// rejoinFile has what has to be known of a rejoin that did not end.
const rejoinFile = "postgresql-rejoin.json"

// rejoin is a rejoin under way, from the moment on at which data are touched.
type rejoin struct {
	Stamp string `json:"stamp"` // of the names of what is kept aside
	// Rewinding is the inode of the data directory in which pg_rewind began: until it has
	// ended well, that one is neither the old nor the new.
	Rewinding uint64 `json:"rewinding,omitempty"`
	// Building is the inode of the new directory, from before something is in it: only
	// that one is ever removed. In its place may be the old one, after an exchange.
	Building uint64 `json:"building,omitempty"`
	// Built is the same, once the base backup in it is complete.
	Built uint64 `json:"built,omitempty"`
}

// spoils reports that data must not be started. A directory that was replaced since,
// by hand, is another one.
func (r *rejoin) spoils(data string) bool {
	return r != nil && r.Rewinding != 0 && r.Rewinding == inode(data)
}

// inPlace reports that data is the base backup that was built.
func (r *rejoin) inPlace(data string) bool {
	return r != nil && r.Built != 0 && r.Built == inode(data)
}

// inode is a directory's; 0 if there is none.
func inode(path string) uint64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}

// readRejoin reads the file; nil if there is none under way.
func readRejoin(d Disk) (*rejoin, error) {
	data, err := d.Read(rejoinFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state of a rejoin: %w", err)
	}
	var r rejoin
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("reading the state of a rejoin: %s is damaged: %w: remove it if the data directory is good, and is not what an interrupted pg_rewind left", rejoinFile, err)
	}
	if r == (rejoin{}) {
		return nil, nil
	}
	return &r, nil
}

func (r *rejoin) write(d Disk) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := d.Write(rejoinFile, append(data, '\n')); err != nil {
		return fmt.Errorf("writing the state of a rejoin: %w", err)
	}
	return nil
}

// Ways to become a standby.
const (
	wayFollow = "follow"        // nothing is here that the source does not have
	wayAsIs   = "as it is"      // a standby; whether it can follow, nobody can say now
	wayRewind = "pg_rewind"     // only what differs is fetched
	wayBackup = "pg_basebackup" // everything is fetched
)

// rejoining is what the steps of one plan have in common.
type rejoining struct {
	*Service
	way  string
	fork branch
}

// planStandby is Plan's for standby. A former primary becomes one
//
//   - as it is, where its log ends where the source's leaves it: after a clean handover;
//   - else, with RejoinRun, by pg_rewind, if its files allow it and the source still has
//     the log that is needed, or by pg_basebackup; with RejoinPrint the error says the
//     commands. Only these overwrite data. What is overwritten is kept beside the data
//     directory: as DATA.wal-before-TIME the part of the log that the source does not
//     have, or as DATA.before-TIME all of it. Nothing removes those.
//
// Each step may be run again after any part of it. What pg_rewind leaves when it is
// killed is of no use, and is not started: a base backup replaces it.
func (s *Service) planStandby(f *facts) ([]role.Step, error) {
	if f.rejoinErr != nil {
		return nil, fmt.Errorf("postgresql cannot become a standby: %w", f.rejoinErr)
	}
	spoiled := f.rejoin.spoils(s.cfg.Data)
	state, _ := f.state(s.cfg.Fence)
	switch {
	case state == role.Standby && !spoiled:
		var steps []role.Step
		if !f.guarded {
			steps = append(steps, s.stepGuard())
		}
		if f.rejoin != nil && f.streaming {
			steps = append(steps, s.stepStreaming())
		}
		return steps, nil
	case f.restore:
		return nil, fmt.Errorf("postgresql cannot become a standby: %s is in %s, so a restore is under way: end or remove that first", recoverySignal, s.cfg.Data)
	case s.cfg.Source == "" && f.stopped && f.control != nil && f.control.standby() && !spoiled:
		return []role.Step{s.stepGuard(), s.stepStart("as the standby that it was")}, nil
	case s.cfg.Source == "":
		return nil, &ManualError{Why: "postgresql cannot become a standby: source is not set: it is the conninfo of the camaster's server, such as host=puppet-camaster.example.net user=replicator"}
	case f.noData:
		return nil, &ManualError{"postgresql cannot become a standby: " + f.err.Error(), s.backupCommands(false, true)}
	case f.stopped && f.control == nil:
		return nil, fmt.Errorf("postgresql cannot become a standby: %w", f.err)
	case s.cfg.Rejoin != RejoinRun && (spoiled || f.stopped && f.diverged || f.recovery && f.diverged):
		return nil, s.manual(f, spoiled)
	}
	r := &rejoining{Service: s}
	var steps []role.Step
	if !f.stopped {
		steps = append(steps, s.stepStop())
	}
	steps = append(steps, s.stepGuard())
	if !f.stopped || !f.control.clean() && !f.control.standby() {
		steps = append(steps, s.stepRecover())
	}
	steps = append(steps, r.stepCompare())
	if s.cfg.Rejoin == RejoinRun && (spoiled || f.rejoin != nil || !f.compared || f.diverged) {
		steps = append(steps, r.stepRewind(), r.stepBackup())
	}
	return append(steps, r.stepFollow(), s.stepStart("as a standby"), r.stepStreaming()), nil
}

// stepCompare finds out which way it has to be.
func (r *rejoining) stepCompare() role.Step {
	return role.Step{
		Name: "compare with the source", Detail: "does the source (" + r.cfg.Source + ") have all that is here?", Timeout: time.Minute,
		Run: r.compareNow,
	}
}

func (r *rejoining) compareNow(ctx context.Context) (string, error) {
	j, err := readRejoin(r.cfg.Disk)
	if err != nil {
		return "", err
	}
	switch {
	case j.inPlace(r.cfg.Data) && inode(r.newDir()) == 0:
		r.way = wayFollow
		return "the base backup is in place", nil
	case j.inPlace(r.cfg.Data), j != nil && j.Built != 0 && j.Built == inode(r.newDir()):
		r.way = wayBackup
		return "the base backup that was begun is complete", nil
	case j.spoils(r.cfg.Data):
		if r.cfg.Rejoin != RejoinRun {
			return "", r.manual(&facts{stopped: true}, true)
		}
		r.way = wayBackup
		return "pg_rewind was cut off: a base backup has to replace what it left", nil
	}
	f, err := r.lookStill(ctx)
	var silent *silentError
	if errors.As(err, &silent) && f.control.standby() {
		// A standby must not be down because the camaster is. It looks itself whether it
		// can follow, and writes nothing in any case.
		r.way = wayAsIs
		return "it was a standby, and is one as it is: " + silent.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("comparing with the source: %w", err)
	}
	r.fork = f.fork
	switch {
	case !f.diverged:
		r.way = wayFollow
		return fmt.Sprintf("it has (%s): here the log ends at %s", f.asked.history, position(f.local.end().Until, f.local.end().Timeline)), nil
	case r.cfg.Rejoin != RejoinRun:
		return "", r.manual(f, false)
	case f.fork.Timeline == 0:
		r.way = wayBackup
		return "the histories have nothing in common: a base backup", nil
	case f.twin:
		r.way = wayBackup
		return f.divergence() + "; pg_rewind takes them for one, so a base backup", nil
	case !f.control.hints:
		r.way = wayBackup
		return f.divergence() + "; pg_rewind needs wal_log_hints = on or data checksums, so a base backup", nil
	}
	r.way = wayRewind
	return f.divergence(), nil
}

// lookStill is a look at a stopped server that knows both histories.
func (s *Service) lookStill(ctx context.Context) (*facts, error) {
	f := &facts{}
	s.lookStopped(ctx, f)
	switch {
	case !f.stopped:
		return nil, errors.New("the server is not stopped")
	case f.err != nil:
		return nil, f.err
	}
	a, err := s.askOnce(ctx)
	if err != nil {
		return f, &silentError{err}
	}
	if a.system != f.system {
		return nil, fmt.Errorf("the source is another cluster: its system identifier is %s, and here it is %s: is source right?", a.system, f.system)
	}
	s.heard(&a) // the next plan knows it, too
	f.asked = &a
	s.compare(f)
	if !f.compared && a.originErr != nil {
		return f, a.originErr
	}
	if !f.compared {
		return nil, fmt.Errorf("where the log ends here is not known: %s", f.control.state)
	}
	return f, nil
}

// silentError: the source says nothing that can be compared with.
type silentError struct{ error }

func (e *silentError) Unwrap() error { return e.error }

// askOnce asks the source over a connection of its own.
func (s *Service) askOnce(ctx context.Context) (answer, error) {
	ctx, cancel := timely(ctx, 10*time.Second, "asking the source")
	defer cancel()
	u := upstream{source: s.cfg.Source, account: s.account}
	defer u.close()
	a, err := u.askNow(ctx, s.origins())
	if err != nil {
		return a, err
	}
	if a.standby {
		return a, errors.New("the source is a standby itself now: it has to be the camaster's server, promoted")
	}
	return a, nil
}

// stepRecover ends a crashed primary's log: it is started in recovery, apart from all
// others and reachable by nobody, until it has replayed its own log to the end, and
// stopped. So it is known where that ends, and the server's own check of timelines
// holds from then on.
func (s *Service) stepRecover() role.Step {
	return role.Step{
		Name: "crash recovery", Detail: "if it was not shut down: let the server replay its own log, reachable by nobody, and stop it", Timeout: s.cfg.StartTimeout + s.cfg.StopTimeout,
		Run: s.recover,
	}
}

func (s *Service) recover(ctx context.Context) (detail string, err error) {
	ctx, cancel := timely(ctx, s.cfg.StartTimeout, "crash recovery")
	defer cancel()
	c, err := s.readControl(ctx)
	if err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	if c.clean() || c.standby() {
		return "not needed: " + c.state, nil
	}
	j, err := readRejoin(s.cfg.Disk)
	if err != nil {
		return "", err
	}
	if j.inPlace(s.cfg.Data) || j.spoils(s.cfg.Data) {
		return "not possible, and not needed", nil
	}
	if err := s.Guard(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "puppetsrv-postgresql-")
	if err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	defer os.RemoveAll(dir)
	if s.account.credential != nil {
		if err := os.Chown(dir, int(s.account.credential.Uid), int(s.account.credential.Gid)); err != nil {
			return "", fmt.Errorf("crash recovery: %w", err)
		}
	}
	log := filepath.Join(dir, "log")
	args := append([]string{"-l", log}, s.options(
		setting{"listen_addresses", ""}, setting{"unix_socket_directories", dir}, setting{"primary_conninfo", ""}, setting{"restore_command", ""},
		setting{"recovery_target_timeline", "current"}, setting{"archive_mode", "off"}, setting{"logging_collector", "off"},
	)...)
	if _, err := s.account.run(ctx, s.pgctl("start", 0, args...)...); err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	began, seen := time.Now(), false
	err = poll(ctx, "it has replayed its log", func(ctx context.Context) (bool, string, error) {
		c, err := s.readControl(ctx)
		if err != nil {
			return false, "", err
		}
		pids, err := processes(s.cfg.Data)
		if err != nil {
			return false, "", err
		}
		// The control file says so from the moment on at which its own log has ended.
		if c.state == inArchiveRecovery {
			return true, "", nil
		}
		if seen = seen || len(pids) > 0; len(pids) == 0 && (seen || time.Since(began) > killWait) {
			return false, "", fmt.Errorf("the server ended: %s", lastLines(log))
		}
		return false, c.state, nil
	})
	if err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	if _, err := s.account.run(ctx, s.fastStop()...); err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	if c, err = s.readControl(ctx); err != nil {
		return "", fmt.Errorf("crash recovery: %w", err)
	}
	end, timeline := c.end()
	return fmt.Sprintf("%s, at %s", c.state, position(end, timeline)), nil
}

// stepFollow sets the stopped server's primary_conninfo.
func (r *rejoining) stepFollow() role.Step {
	return role.Step{
		Name: "follow", Detail: "primary_conninfo = '" + r.primaryConninfo().String() + "' in " + autoConf + ", and " + standbySignal, Timeout: time.Minute,
		Run: func(context.Context) (string, error) {
			if err := r.prepare(r.cfg.Data); err != nil {
				return "", err
			}
			return "it will stream from the source", nil
		},
	}
}

// prepare makes a directory one of a standby of the source.
func (s *Service) prepare(data string) error {
	if err := guard(data); err != nil {
		return fmt.Errorf("guarding %s: %w", data, err)
	}
	return setConninfo(data, s.primaryConninfo())
}

// primaryConninfo is the source for a walreceiver.
func (s *Service) primaryConninfo() conninfo {
	c, err := parseSource(s.cfg.Source)
	if err != nil {
		return nil // it was validated
	}
	return c.without("dbname", "database")
}

// stepStreaming is Service's, if there is somebody to stream from.
func (r *rejoining) stepStreaming() role.Step {
	step := r.Service.stepStreaming()
	run := step.Run
	step.Run = func(ctx context.Context) (string, error) {
		if r.way == wayAsIs {
			return "not waited for: the source does not answer", nil
		}
		return run(ctx)
	}
	return step
}

// stepStreaming waits for the stream, and forgets the rejoin.
func (s *Service) stepStreaming() role.Step {
	return role.Step{
		Name: "streaming", Detail: "wait until it streams from the source", Timeout: s.cfg.StartTimeout + 10*time.Second,
		Run: func(ctx context.Context) (string, error) {
			ctx, cancel := timely(ctx, s.cfg.StartTimeout, "waiting for the stream")
			defer cancel()
			var f *facts
			err := poll(ctx, "it streams", func(ctx context.Context) (bool, string, error) {
				f = s.look(ctx)
				_, detail := f.state(s.cfg.Fence)
				if f.stopped || f.primary {
					return false, "", errors.New("it does not: " + detail)
				}
				return f.streaming && !f.diverged && !f.unsure, detail, nil
			})
			if err != nil {
				return "", err
			}
			if f.rejoin != nil {
				if err := (&rejoin{}).write(s.cfg.Disk); err != nil {
					return "", err
				}
			}
			return fmt.Sprintf("from timeline %d, at %s", f.timeline, formatLSN(f.received)), nil
		},
	}
}

// sourceTimeline is the timeline of the source's last checkpoint, asked by SQL, as
// pg_rewind's user may.
func (s *Service) sourceTimeline(ctx context.Context) (uint32, error) {
	cfg, err := sourceConfig(s.rewindConninfo().String(), s.account)
	if err != nil {
		return 0, err
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	results, err := conn.Exec(ctx, "SELECT timeline_id FROM pg_control_checkpoint()").ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return 0, errors.New("pg_control_checkpoint(): not one row")
	}
	var timeline uint32
	_, err = fmt.Sscan(string(results[0].Rows[0][0]), &timeline)
	return timeline, err
}

// rewindConninfo is the source for pg_rewind, which wants a database.
func (s *Service) rewindConninfo() conninfo {
	c, err := parseSource(s.cfg.Source)
	if err != nil {
		return nil // it was validated
	}
	if c.get("dbname") == "" {
		c = c.with("dbname", "postgres")
	}
	return c
}
