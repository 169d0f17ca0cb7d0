package cadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Replacement is what Replace did.
type Replacement struct {
	Files, Removed int
	// Kept is where the CA is that was here before, if it was replaced as a whole.
	Kept string
}

// ErrNotFollowing is returned by Replace where the cadir is not a standby's.
var ErrNotFollowing = errors.New("this host's CA follows nobody: it is open, opening, or closed")

// Replace makes the cadir hold files, a whole set with the hash that its source says.
// What is not here already has to have come by Put. It refuses a set that does not
// verify, and, unless an operator said otherwise (Follow), one that this set is no older
// state of; and it writes nothing unless the CA is sealed and follows.
//
// A set that grew is written file by file, each by a rename, in an order in which the
// cadir verifies at every instant. Any other is made beside, and exchanged at once; what
// was here is kept. A crash in the middle is finished by Recover.
func (d *Dir) Replace(ctx context.Context, files []File, hash string) (Replacement, error) {
	r, err := d.replace(ctx, files, hash)
	if err != nil {
		err = fmt.Errorf("replacing the CA in %q: %w", d.path, err)
	}
	return r, err
}

func (d *Dir) replace(ctx context.Context, files []File, hash string) (Replacement, error) {
	if err := d.Recover(ctx); err != nil {
		return Replacement{}, err
	}
	// What takes long is done before the lock: an opening must not wait for it.
	old, err := d.Look(ctx)
	var missing *MissingError
	var unfinished *UnfinishedError
	if errors.As(err, &unfinished) {
		return Replacement{}, err
	}
	if old != nil && old.Hash == hash {
		return Replacement{}, nil
	}
	none := errors.As(err, &missing) && missing.All
	in, e := d.assemble(ctx, files, hash)
	if e != nil {
		return Replacement{}, e
	}
	exchanged := true
	switch {
	case none:
	case err != nil:
		err = &AheadError{"it is not known what it has, for it does not verify: " + err.Error()}
	default:
		exchanged, err = descends(old, in, time.Now())
	}
	if err != nil && !none {
		if !d.followed().replace {
			return Replacement{}, err
		}
		exchanged = true
	}
	if err := d.changed(ctx, in); err != nil {
		return Replacement{}, err
	}

	if err := d.change.take(ctx); err != nil {
		return Replacement{}, err
	}
	defer d.change.release()
	lock, err := d.exclusive(ctx)
	if err != nil {
		return Replacement{}, err
	}
	defer lock.Unlock()
	if err := d.mayReplace(ctx, old, none); err != nil {
		return Replacement{}, err
	}
	r := Replacement{Files: len(in.puts), Removed: len(in.removes)}
	j := journal{Format: journalFormat, Hash: hash, Puts: in.puts, Removes: in.removes}
	if exchanged {
		w, err := d.build(in)
		if err != nil {
			return Replacement{}, err
		}
		j = journal{Format: journalFormat, Hash: hash, Whole: &w}
		r.Kept = w.Keep
	} else if err := d.syncBlobs(in.puts); err != nil {
		return Replacement{}, err
	}
	if err := d.begin(j, in); err != nil {
		return Replacement{}, err
	}
	if err := d.finish(j); err != nil {
		return Replacement{}, err
	}
	if r.Kept != "" {
		if s, err := statPath(r.Kept); err != nil || s.zero() {
			r.Kept = "" // there was nothing to keep
		}
	}
	return r, d.compare(ctx, hash)
}

// changed lets the next look know what was verified here, so that it does so only once.
func (d *Dir) changed(ctx context.Context, in *incoming) error {
	if err := d.looking.take(ctx); err != nil {
		return err
	}
	defer d.looking.release()
	clear(d.staged)
	for p, c := range in.signed {
		if d.signed[p].content != c {
			d.staged[c.sum] = c
		}
	}
	return nil
}

// mayReplace says why the cadir must not be written; the change is locked.
func (d *Dir) mayReplace(ctx context.Context, old *Set, none bool) error {
	if !d.Following() {
		return ErrNotFollowing
	}
	switch isSealed, err := d.Sealed(); {
	case err != nil:
		return err
	case !isSealed:
		return errors.New("the CA is not sealed: puppetserver may be using it")
	}
	if err := d.noJournal(); err != nil {
		return err
	}
	now, err := d.Look(ctx)
	if now != old || (now == nil && none != isNone(err)) {
		return errors.New("the cadir changed while the new set was verified; it is tried again")
	}
	return nil
}

func isNone(err error) bool {
	var missing *MissingError
	return errors.As(err, &missing) && missing.All
}

// syncBlobs puts on disk what was fetched.
func (d *Dir) syncBlobs(files []File) error {
	const few = 16
	if len(files) > few {
		dir, err := os.Open(d.work(filesDir))
		if err != nil {
			return err
		}
		defer dir.Close()
		return syncAll(int(dir.Fd()))
	}
	for _, f := range files {
		file, _, err := openRegular(d.blob(f.Sum))
		if err != nil {
			return err
		}
		err = file.Sync()
		file.Close()
		if err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	return syncDir(d.work(filesDir))
}

// compare looks whether the cadir is now what it was to be.
func (d *Dir) compare(ctx context.Context, hash string) error {
	set, err := d.Look(ctx)
	if err == nil && set.Hash != hash {
		err = errors.New("something else writes in the cadir: it is not the set that was put there")
	}
	if err != nil {
		return fmt.Errorf("after it: %w", err)
	}
	if err := d.looking.take(ctx); err != nil {
		return err
	}
	clear(d.staged)
	d.looking.release()
	if err := d.Discard(nil); err != nil {
		d.log.Warn("what was fetched is left", "directory", d.work(filesDir), "error", err)
	}
	if !d.followed().on {
		return nil
	}
	if n, err := d.removeStrays(strayAge); err != nil {
		d.log.Warn("old requests are left", "directory", filepath.Join(d.path, requestsDir), "error", err)
	} else if n > 0 {
		d.log.Info("removed requests that came while the CA was sealed", "requests", n)
	}
	return nil
}
