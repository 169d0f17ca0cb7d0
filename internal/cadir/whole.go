package cadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The names in the work directory of a directory that is to be the cadir: while it is
// made, and once the journal knows it. What lies under the second one may have been the
// cadir, and is never removed.
const (
	buildingDir = "building"
	newDir      = "new"
)

func sorted(files []File) []File {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// build makes a directory that holds a set, on disk.
func (d *Dir) build(in *incoming) (whole, error) {
	uid, gid, mode, err := d.owner()
	if err != nil {
		return whole{}, err
	}
	building := d.work(buildingDir)
	if err := os.RemoveAll(building); err != nil {
		return whole{}, err
	}
	if err := d.step("build"); err != nil {
		return whole{}, err
	}
	for _, dir := range []string{building, filepath.Join(building, signedDir), filepath.Join(building, requestsDir)} {
		if err := makeDir(dir, uid, gid, mode); err != nil {
			return whole{}, err
		}
	}
	for _, f := range in.files {
		to := filepath.Join(building, filepath.FromSlash(f.Path))
		if c := in.tops[f.Path]; c != nil {
			err = writeNew(to, c.data, d.attributesOf(f, uid, gid))
			if now, e := statPath(to); e == nil && f.Path == serialFile {
				d.remember(now, c.data)
			}
		} else {
			err = d.buildSigned(in, f, to, d.attributesOf(f, uid, gid))
		}
		if err != nil {
			return whole{}, fmt.Errorf("making the new directory: %s: %w", f.Path, err)
		}
	}
	if err := d.syncBlobs(in.files); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return whole{}, err
	}
	dir, err := os.Open(building)
	if err != nil {
		return whole{}, err
	}
	err = syncAll(int(dir.Fd()))
	dir.Close()
	if err != nil {
		return whole{}, err
	}
	if err := d.step("built"); err != nil {
		return whole{}, err
	}
	s, err := statPath(building)
	return whole{s.inode, d.keepName()}, err
}

func makeDir(path string, uid, gid int, mode uint32) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return attributes{uid: uid, gid: gid, mode: mode & 0o775}.give(dir)
}

// buildSigned puts a certificate to its place. It is a link to the one that is here or
// was fetched: such files are never written again, but replaced.
func (d *Dir) buildSigned(in *incoming, f File, to string, a attributes) error {
	from := d.file(f.Path)
	if slices.ContainsFunc(in.puts, func(p File) bool { return p.Path == f.Path }) {
		from = d.blob(f.Sum)
		file, _, err := openRegular(from)
		if err != nil {
			return err
		}
		err = a.give(file)
		file.Close()
		if err != nil {
			return err
		}
	}
	if os.Link(from, to) == nil {
		return nil
	}
	data, _, err := readRegular(from, maxCertificate)
	if err == nil && sumOf(data) != f.Sum {
		err = errMoved
	}
	if err != nil {
		return err
	}
	return writeNew(to, data, a)
}

// keepName is a path for the CA that is replaced.
func (d *Dir) keepName() string {
	base := d.path + ".before-" + time.Now().UTC().Format("20060102T150405Z")
	name := base
	for n := 2; ; n++ {
		if s, err := statPath(name); err != nil || s.zero() {
			return name
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
}

// finishWhole puts the new directory in the cadir's place.
func (d *Dir) finishWhole(w whole) error {
	if filepath.Dir(w.Keep) != filepath.Dir(d.path) {
		return fmt.Errorf("the journal would keep the old CA in %q", w.Keep)
	}
	now, err := statPath(d.path)
	if err != nil {
		return err
	}
	fresh := d.work(newDir)
	if now.inode != w.Inode {
		if s, err := statPath(d.work(buildingDir)); err == nil && s.inode == w.Inode {
			if err := rename(d.work(buildingDir), fresh); err != nil {
				return err
			}
		}
		made, err := statPath(fresh)
		if err != nil {
			return err
		}
		if made.inode != w.Inode {
			return fmt.Errorf("neither %q nor %q is the new CA", d.path, fresh)
		}
		if err := d.step("exchange"); err != nil {
			return err
		}
		if err := d.swap(fresh, now, w.Keep); err != nil {
			return fmt.Errorf("%w; is it a mount point? Mount its parent instead", err)
		}
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil {
		return err
	}
	// What lies there now is what was the cadir.
	if old, err := statPath(fresh); err != nil || old.zero() {
		return err
	}
	if err := d.step("keep"); err != nil {
		return err
	}
	return keep(fresh, w.Keep)
}

// swap puts a directory in the cadir's place.
func (d *Dir) swap(fresh string, now stamp, kept string) error {
	if now.zero() {
		return rename(fresh, d.path)
	}
	err := exchange(fresh, d.path)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// A file system that cannot: for an instant there is no cadir.
	if err := rename(d.path, kept); err != nil {
		return err
	}
	if err := d.step("exchange in two"); err != nil {
		return err
	}
	return rename(fresh, d.path)
}

// keep gives a replaced CA its place. One that has nothing in it is removed.
func keep(dir, as string) error {
	for _, empty := range []string{filepath.Join(dir, signedDir), filepath.Join(dir, requestsDir), dir} {
		if err := os.Remove(empty); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return rename(dir, as)
		}
	}
	return nil
}

// keepLeft removes what a crash before the journal left. A directory that only a journal
// can have brought where it is, is kept, whatever became of that.
func (d *Dir) keepLeft() error {
	if err := os.RemoveAll(d.work(buildingDir)); err != nil {
		return err
	}
	s, err := statPath(d.work(newDir))
	if err != nil || s.zero() {
		return err
	}
	return keep(d.work(newDir), d.keepName())
}
