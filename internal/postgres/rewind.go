package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// Names beside the data directory.
func (s *Service) newDir() string    { return filepath.Clean(s.cfg.Data) + ".puppetsrv-new" }
func (s *Service) configDir() string { return filepath.Clean(s.cfg.Data) + ".puppetsrv-config" }
func (s *Service) aside(stamp string) string {
	return filepath.Clean(s.cfg.Data) + ".before-" + stamp
}
func (s *Service) asideLog(stamp string) string {
	return filepath.Clean(s.cfg.Data) + ".wal-before-" + stamp
}

// stamp names what is kept aside; the same for all of one rejoin.
func stamp(j *rejoin) string {
	if j != nil && j.Stamp != "" {
		return j.Stamp
	}
	return time.Now().UTC().Format("20060102T150405.000Z")
}

// stepRewind fetches what differs, if that is the way. If it cannot be, the next step's
// way is taken.
func (r *rejoining) stepRewind() role.Step {
	return role.Step{
		Name: "pg_rewind", Detail: "if something is here that the source does not have: " + r.rewindCommand(false).String() +
			"; what it drops of the log is kept in " + r.asideLog("TIME"),
		Timeout: r.cfg.RejoinTimeout + time.Minute,
		Run:     r.rewind,
	}
}

func (s *Service) rewindCommand(dry bool) role.Command {
	c := role.Command{filepath.Join(s.cfg.BinDir, "pg_rewind"), "--target-pgdata=" + s.cfg.Data, "--source-server=" + s.rewindConninfo().String(), "--no-ensure-shutdown"}
	if dry {
		c = append(c, "--dry-run")
	}
	return c
}

func (r *rejoining) rewind(ctx context.Context) (string, error) {
	if r.way != wayRewind {
		return "not needed", nil
	}
	ctx, cancel := timely(ctx, r.cfg.RejoinTimeout, "pg_rewind")
	defer cancel()
	if err := r.awaitCheckpoint(ctx); err != nil {
		return "", err
	}
	// Up to where it writes, it may fail as it likes.
	if out, err := r.account.runIn(ctx, r.cfg.Data, r.rewindCommand(true)...); err != nil {
		if ctx.Err() != nil || unreachable(out) {
			return "", err
		}
		r.way = wayBackup
		return "it cannot be, so a base backup: " + err.Error(), nil
	}
	j := &rejoin{Stamp: stamp(nil), Rewinding: inode(r.cfg.Data)}
	if err := r.keepLog(ctx, r.asideLog(j.Stamp)); err != nil {
		return "", err
	}
	if err := r.saveConfig(ctx); err != nil {
		return "", err
	}
	if err := j.write(r.cfg.Disk); err != nil {
		return "", err
	}
	if _, err := r.account.runIn(ctx, r.cfg.Data, r.rewindCommand(false)...); err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		r.way = wayBackup
		return "it failed, so a base backup has to replace what it left: " + err.Error(), nil
	}
	if err := r.restoreConfig(ctx, r.configDir(), r.cfg.Data); err != nil {
		return "", err
	}
	if err := r.prepare(r.cfg.Data); err != nil {
		return "", err
	}
	if err := (&rejoin{}).write(r.cfg.Disk); err != nil {
		return "", err
	}
	if err := r.remove(ctx, r.configDir()); err != nil {
		return "", err
	}
	r.way = wayFollow
	return fmt.Sprintf("rewound to %s; the log from there on is in %s", position(r.fork.Until, r.fork.Timeline), r.asideLog(j.Stamp)), nil
}

// unreachable: pg_rewind got no connection, which says nothing of what it could do.
func unreachable(output string) bool {
	for _, s := range [...]string{"connection to server", "could not connect", "server closed the connection", "the database system is"} {
		if strings.Contains(output, s) {
			return true
		}
	}
	return false
}

// awaitCheckpoint waits until the source's control file says its timeline; pg_rewind
// takes that for the source's, up to PostgreSQL 15.
func (r *rejoining) awaitCheckpoint(ctx context.Context) error {
	ctx, cancel := timely(ctx, 5*time.Minute, "the source's first checkpoint since its promotion")
	defer cancel()
	a, err := r.askOnce(ctx)
	if err != nil {
		return err
	}
	want := a.history.end().Timeline
	return poll(ctx, fmt.Sprintf("the source has a checkpoint on timeline %d", want), func(ctx context.Context) (bool, string, error) {
		got, err := r.sourceTimeline(ctx)
		if err != nil {
			return false, "", fmt.Errorf("asking the source for its checkpoint: %w", err)
		}
		return got >= want, fmt.Sprintf("it has one on %d", got), nil
	})
}

// keepLog copies the segments of the log that the source does not have.
func (r *rejoining) keepLog(ctx context.Context, to string) error {
	c, err := r.readControl(ctx)
	if err != nil {
		return fmt.Errorf("keeping the log: %w", err)
	}
	names, err := readNames(r.path("pg_wal"))
	if err != nil {
		return fmt.Errorf("keeping the log: %w", err)
	}
	first := segmentName(r.fork, c.segment)
	end := c.minRecovery
	if e, _ := c.end(); e > end {
		end = e
	}
	var keep []string
	for _, name := range names {
		// Names of segments sort by timeline and place; those behind the end are spare ones.
		if len(name) == len(first) && name >= first && name[8:] <= segmentName(branch{0, end}, c.segment)[8:] || strings.HasSuffix(name, ".history") {
			keep = append(keep, r.path(filepath.Join("pg_wal", name)))
		}
	}
	slices.Sort(keep)
	if err := r.makeDir(to); err != nil {
		return fmt.Errorf("keeping the log: %w", err)
	}
	return r.copy(ctx, keep, to)
}

// segmentName is the file with a position of the log (XLogFileName).
func segmentName(b branch, segment uint64) string {
	n, perID := uint64(b.Until)/segment, uint64(1<<32)/segment
	return fmt.Sprintf("%08X%08X%08X", b.Timeline, n/perID, n%perID)
}

// copy copies files as the server's user, with their modes and times. Each call has as
// many as fit into arguments.
func (s *Service) copy(ctx context.Context, files []string, to string) error {
	for chunk := range slices.Chunk(files, 256) {
		argv := append([]string{"cp", "-a", "--"}, chunk...)
		if _, err := s.account.run(ctx, append(argv, to+"/")...); err != nil {
			return fmt.Errorf("copying to %s: %w", to, err)
		}
	}
	return nil
}

// remove removes a directory beside the data directory that is of this package's
// making, as the server's user.
func (s *Service) remove(ctx context.Context, dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := s.account.run(ctx, "rm", "-rf", "--", dir); err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}

// makeDir makes a directory for the server's user; it may be there.
func (s *Service) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return chownAs(d, s.cfg.Data)
}

// ownFiles are those at the top of the data directory that are the host's own, and not
// the cluster's: pg_rewind and pg_basebackup bring the source's.
func (s *Service) ownFiles(dir string) ([]string, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		switch filepath.Ext(name) {
		case ".conf", ".crt", ".key", ".pem", ".crl":
			files = append(files, filepath.Join(dir, name))
		default:
			if name == "conf.d" {
				files = append(files, filepath.Join(dir, name))
			}
		}
	}
	slices.Sort(files)
	return files, nil
}

// saveConfig copies the host's own files aside, whole or not at all.
func (s *Service) saveConfig(ctx context.Context) error {
	files, err := s.ownFiles(s.cfg.Data)
	if err != nil {
		return fmt.Errorf("keeping the configuration: %w", err)
	}
	part := s.configDir() + ".part"
	for _, dir := range []string{part, s.configDir()} {
		if err := s.remove(ctx, dir); err != nil {
			return err
		}
	}
	if err := s.makeDir(part); err != nil {
		return fmt.Errorf("keeping the configuration: %w", err)
	}
	if err := s.copy(ctx, files, part); err != nil {
		return err
	}
	if err := os.Rename(part, s.configDir()); err != nil {
		return fmt.Errorf("keeping the configuration: %w", err)
	}
	return syncDir(filepath.Dir(s.configDir()))
}

// restoreConfig brings them from one directory to another.
func (s *Service) restoreConfig(ctx context.Context, from, to string) error {
	files, err := s.ownFiles(from)
	if err != nil {
		return fmt.Errorf("bringing the configuration back: %w", err)
	}
	return s.copy(ctx, files, to)
}
