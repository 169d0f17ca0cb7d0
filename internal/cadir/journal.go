package cadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

// journalFile is the name of the journal in the work directory.
const journalFile = "journal"

// journal is what a replacement is going to do. It is written when all that it needs is
// on disk, so that it can always be finished; until it is, the CA is not opened.
type journal struct {
	Format  int      `json:"format"`
	Hash    string   `json:"hash"` // of the set when it is done
	Puts    []File   `json:"puts,omitempty"`
	Removes []string `json:"removes,omitempty"`
	// Whole is for one in which the directory itself is replaced.
	Whole *whole `json:"whole,omitempty"`
}

type whole struct {
	Inode uint64 `json:"inode"` // of the new directory
	Keep  string `json:"keep"`  // the path of the old one afterwards
}

const journalFormat = 1

// begin writes the journal.
func (d *Dir) begin(j journal, in *incoming) error {
	// What comes is sealed, so where there is no record this is since when.
	f, _ := in.set.File(serialFile)
	if err := d.noteCopy(f.Mode, true); err != nil {
		return err
	}
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := d.step("journal"); err != nil {
		return err
	}
	return store.WriteFile(d.work(journalFile), data)
}

// noJournal says that a replacement is not finished.
func (d *Dir) noJournal() error {
	s, err := statPath(d.work(journalFile))
	if err == nil && !s.zero() {
		err = errors.New("it is being replaced, and that is not finished")
	}
	return err
}

// Recover finishes a replacement that a crash left in the middle.
func (d *Dir) Recover(ctx context.Context) error {
	if err := d.change.take(ctx); err != nil {
		return fmt.Errorf("finishing a replacement: %w", err)
	}
	defer d.change.release()
	if s, err := statPath(d.work()); err == nil && s.zero() {
		return nil
	}
	lock, err := d.exclusive(ctx)
	if err != nil {
		return fmt.Errorf("finishing a replacement: %w", err)
	}
	defer lock.Unlock()
	if err := d.recover(); err != nil {
		return fmt.Errorf("finishing a replacement of the CA in %q: %w", d.path, err)
	}
	return nil
}

func (d *Dir) recover() error {
	data, err := store.ReadFile(d.work(journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d.keepLeft()
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(data, &j)
	}
	if err == nil && j.Format != journalFormat {
		err = fmt.Errorf("format %d: this release knows %d", j.Format, journalFormat)
	}
	if err == nil {
		err = validFiles(sorted(j.Puts))
	}
	if err != nil {
		return fmt.Errorf("the journal %s is damaged (%w): the cadir verifies or does not; if it does, remove the journal", d.work(journalFile), err)
	}
	switch isSealed, err := d.Sealed(); {
	case err != nil:
		return err
	case !isSealed:
		return errors.New("the CA is not sealed: puppetserver may be using it")
	}
	return d.finish(j)
}

// finish does what a journal says, all of it or what is left.
func (d *Dir) finish(j journal) error {
	var err error
	if j.Whole != nil {
		err = d.finishWhole(*j.Whole)
	} else {
		err = d.finishFiles(j)
	}
	if err != nil {
		return err
	}
	if err := d.step("journal done"); err != nil {
		return err
	}
	if err := os.Remove(d.work(journalFile)); err != nil {
		return err
	}
	return syncDir(d.work())
}

func (d *Dir) finishFiles(j journal) error {
	uid, gid, _, err := d.owner()
	if err != nil {
		return err
	}
	uses := make(map[Sum]int, len(j.Puts))
	for _, f := range j.Puts {
		uses[f.Sum]++
	}
	signed := false
	for _, f := range j.Puts {
		_, isTop := topNamed(f.Path)
		signed = signed || !isTop
		a := d.attributesOf(f, uid, gid)
		// What two files have, or a seal may make unreadable before it is moved, is
		// copied: all of this may be done twice.
		if uses[f.Sum] == 1 && f.Path != serialFile {
			err = d.move(f, a)
		} else if data, e := d.readBlob(f); e == nil {
			err = d.putTop(f.Path, data, a)
		} else {
			err = e
		}
		if err != nil {
			return err
		}
	}
	for _, p := range j.Removes {
		if _, ok := MaxSize(p); !ok {
			return fmt.Errorf("the journal would remove %q", p)
		}
		if err := d.step("remove " + p); err != nil {
			return err
		}
		if err := os.Remove(d.file(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		signed = true
	}
	if signed {
		if err := syncDir(d.file(signedDir)); err != nil {
			return err
		}
	}
	return syncDir(d.path)
}

// move gives what was fetched its name in the cadir.
func (d *Dir) move(f File, a attributes) error {
	from, to := d.blob(f.Sum), d.file(f.Path)
	file, _, err := openRegular(from)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.moved(f, to); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	err = a.give(file)
	file.Close()
	if err != nil {
		return err
	}
	if err := d.step("put " + f.Path); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// moved checks that a file is there already.
func (d *Dir) moved(f File, to string) error {
	now, err := statPath(to)
	if err == nil && now.zero() {
		err = errors.New("neither it nor what was fetched is there")
	}
	if err != nil {
		return err
	}
	data, _, err := d.readAny(to, now, f.Size)
	if err == nil && sumOf(data) != f.Sum {
		err = errors.New("what was fetched is gone, and it is something else")
	}
	return err
}

// attributesOf is what a replaced file is given: the cadir's owner, and mode and time of
// the source. The serial arrives sealed.
func (d *Dir) attributesOf(f File, uid, gid int) attributes {
	a := attributes{uid, gid, f.Mode&0o664 | 0o400, f.Time}
	switch f.Path {
	case serialFile:
		if a.uid, a.gid, a.mode = d.sealAs(uid); a.uid < 0 {
			a.uid, a.gid = uid, gid
		}
	case keyFile, rootKeyFile:
		a.mode &= 0o640
	}
	return a
}
