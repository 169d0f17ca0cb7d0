package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
	"golang.org/x/sys/unix"
)

// stepBackup fetches everything, if that is the way.
func (r *rejoining) stepBackup() role.Step {
	return role.Step{
		Name: "pg_basebackup", Detail: "if pg_rewind cannot do it: " + r.backupCommand().String() +
			", which takes the place of the old one; that is kept as " + r.aside("TIME"),
		Timeout: r.cfg.RejoinTimeout + time.Minute,
		Run:     r.backup,
	}
}

func (s *Service) backupCommand() role.Command {
	return role.Command{filepath.Join(s.cfg.BinDir, "pg_basebackup"), "--pgdata=" + s.newDir(), "--dbname=" + s.primaryConninfo().String(),
		"--wal-method=stream", "--checkpoint=fast", "--no-password"}
}

func (r *rejoining) backup(ctx context.Context) (string, error) {
	if r.way != wayBackup {
		return "not needed", nil
	}
	ctx, cancel := timely(ctx, r.cfg.RejoinTimeout, "pg_basebackup")
	defer cancel()
	j, err := readRejoin(r.cfg.Disk)
	if err != nil {
		return "", err
	}
	if j == nil {
		j = &rejoin{}
	}
	j.Stamp = stamp(j)
	if j.Built == 0 || j.Built != inode(r.newDir()) && !j.inPlace(r.cfg.Data) {
		if err := r.build(ctx, j); err != nil {
			return "", err
		}
		j.Built = inode(r.newDir())
		if err := j.write(r.cfg.Disk); err != nil {
			return "", err
		}
	}
	if err := r.swap(j); err != nil {
		return "", err
	}
	// What pg_rewind may have left is aside now. Built stays until the server streams:
	// by its control file a base backup is a server that crashed.
	j.Rewinding = 0
	if err := j.write(r.cfg.Disk); err != nil {
		return "", err
	}
	if err := r.remove(ctx, r.configDir()); err != nil {
		return "", err
	}
	r.way = wayFollow
	return "done; what was here is in " + r.aside(j.Stamp), nil
}

// build makes the new directory, complete and prepared.
func (r *rejoining) build(ctx context.Context, j *rejoin) error {
	if spaces, err := readNames(r.path("pg_tblspc")); err == nil && len(spaces) > 0 {
		return &ManualError{fmt.Sprintf("it has %d tablespaces, which are not at their places in a base backup made beside them", len(spaces)), r.backupCommands(true, true)}
	}
	if err := r.clear(ctx, j); err != nil {
		return err
	}
	if err := r.makeDir(r.newDir()); err != nil {
		return fmt.Errorf("pg_basebackup: %w", err)
	}
	j.Building = inode(r.newDir())
	if err := j.write(r.cfg.Disk); err != nil {
		return err
	}
	if _, err := r.account.runIn(ctx, r.newDir(), r.backupCommand()...); err != nil {
		return err
	}
	config := r.cfg.Data
	if j.spoils(r.cfg.Data) {
		config = r.configDir() // what pg_rewind left may be the source's
	}
	if err := r.restoreConfig(ctx, config, r.newDir()); err != nil {
		return err
	}
	return r.prepare(r.newDir())
}

// clear removes what a base backup that was cut off left, and nothing else.
func (r *rejoining) clear(ctx context.Context, j *rejoin) error {
	dir := r.newDir()
	err := os.Remove(dir) // if it is empty
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if j.Building == 0 || j.Building != inode(dir) {
		return &ManualError{Why: fmt.Sprintf("%s is there, and not of this rejoin: look what it is, and move it away", dir)}
	}
	pids, err := processes(dir)
	if err != nil {
		return err
	}
	if err := kill(pids); err != nil {
		return err
	}
	return r.remove(ctx, dir)
}

// swap puts the new directory in the old one's place, at once, and keeps the old one.
func (r *rejoining) swap(j *rejoin) error {
	data := filepath.Clean(r.cfg.Data)
	parent := filepath.Dir(data)
	if inode(data) != j.Built {
		err := unix.Renameat2(unix.AT_FDCWD, r.newDir(), unix.AT_FDCWD, data, unix.RENAME_EXCHANGE)
		if err != nil {
			return fmt.Errorf("exchanging %s and %s (the data directory must not be a mount point or a link): %w", r.newDir(), data, err)
		}
		if err := syncDir(parent); err != nil {
			return err
		}
	}
	err := os.Rename(r.newDir(), r.aside(j.Stamp))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping the old data directory: %w", err)
	}
	return syncDir(parent)
}
