package cadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A CA is sealed while the user that puppetserver runs as, the cadir's owner, cannot read
// the serial. puppetserver then answers certificate requests with an error and signs
// nothing, and lives on. As root, the seal is a serial of root's, mode 0600. A process
// that runs as that very user can only take the file's mode away (0000), which binds who
// goes by modes: good for tests and a playground.

// unsealedMode is the serial's mode where it is not known: puppetserver's.
const unsealedMode = 0o644

// settle is how long a CA has to stay as it is after it was sealed. A request that had
// read the serial before is answered within it, so that nobody takes the set for final
// before; and one that wrote a new serial, unsealed, is found.
const settle = 250 * time.Millisecond

// settled is how long that is waited for at the most.
const settled = 10 * time.Second

// sealFile is the name of the record in the state directory.
const sealFile = "seal.json"

type sealRecord struct {
	Since time.Time `json:"since"` // when it was sealed
	Mode  uint32    `json:"mode"`  // what the serial had before
	// Copy: what is sealed came from a camaster, and was not opened since.
	Copy bool `json:"copy,omitempty"`
}

// Sealed reports whether puppetserver can sign nothing. A CA without a serial counts as
// sealed; what puppetserver does with that at its start, CheckStart says.
func (d *Dir) Sealed() (bool, error) {
	uid, gid, _, err := d.owner()
	if err != nil {
		return false, err
	}
	s, err := statPath(d.file(serialFile))
	if err != nil {
		return false, fmt.Errorf("looking at the seal: %w", err)
	}
	return s.zero() || sealed(s, uid, gid), nil
}

// sealed says whether the user uid with the group gid cannot read a file. If it is
// another's, no class of others must be able to: what groups a user has is not known.
func sealed(s stamp, uid, gid int) bool {
	if int(s.uid) == uid {
		return s.mode&0o400 == 0
	}
	return s.mode&0o044 == 0
}

// serialMode is what the serial's mode is, or will be, unsealed.
func (d *Dir) serialMode(s stamp) uint32 {
	if uid, gid, _, err := d.owner(); err == nil && !sealed(s, uid, gid) {
		return s.mode
	}
	if r, err := d.sealRecord(); err == nil && r.Mode&0o400 != 0 {
		return r.Mode & 0o777
	}
	return unsealedMode
}

func (d *Dir) sealRecord() (sealRecord, error) {
	var r sealRecord
	data, err := d.state.Read(sealFile)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// copied reports whether what is here came from a camaster, and was not opened since.
func (d *Dir) copied() bool {
	r, err := d.sealRecord()
	return err == nil && r.Copy
}

// noteCopy keeps that, durably. mode is the serial's where it is not known.
func (d *Dir) noteCopy(mode uint32, is bool) error {
	r, err := d.sealRecord()
	if err != nil {
		r = sealRecord{Since: time.Now().UTC(), Mode: mode}
	} else if r.Copy == is {
		return nil
	}
	r.Copy = is
	return d.writeState(sealFile, r)
}

// writeState keeps a record as JSON.
func (d *Dir) writeState(name string, record any) error {
	data, err := json.Marshal(record)
	if err == nil {
		err = os.MkdirAll(string(d.state), 0o700)
	}
	if err == nil {
		err = d.state.Write(name, append(data, '\n'))
	}
	return err
}

// Seal takes the serial away from puppetserver, and returns when nothing has been signed
// since for a moment. It does not touch the serial's content. Where there is no CA there
// is nothing to seal.
func (d *Dir) Seal(ctx context.Context) error {
	if err := d.change.take(ctx); err != nil {
		return fmt.Errorf("sealing the CA: %w", err)
	}
	defer d.change.release()
	if err := d.seal(ctx); err != nil {
		return fmt.Errorf("sealing the CA in %q: %w", d.path, err)
	}
	return nil
}

func (d *Dir) seal(ctx context.Context) error {
	before, err := d.fence()
	if err != nil {
		return err
	}
	if before == nil {
		return nil // it was, or there is none
	}
	// The record is for later, and the fence is not held up for it.
	if err := d.writeState(sealFile, sealRecord{Since: time.Now().UTC(), Mode: before.mode & 0o777}); err != nil {
		d.log.Error("the CA is sealed, but since when could not be kept", "error", err)
	}
	deadline := time.Now().Add(settled)
	for last, since := d.face(), time.Now(); time.Since(since) < d.settle; {
		if time.Now().After(deadline) {
			return fmt.Errorf("something writes in it since %v though it is sealed: is another CA server, or a tool, at work there?", settled)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d.settle / 10):
		}
		if again, err := d.fence(); err != nil {
			return err
		} else if now := d.face(); again != nil || now != last {
			last, since = d.face(), time.Now()
		}
	}
	return nil
}

// face is what a signature changes.
func (d *Dir) face() (f [3]stamp) {
	for i, name := range []string{serialFile, inventoryFile, signedDir} {
		f[i], _ = statPath(d.file(name)) // a failing stat shows as a change
	}
	return f
}

// fence makes the serial unreadable for puppetserver. It returns what the file was like
// before, nil if it was sealed already or is not there.
func (d *Dir) fence() (*stamp, error) {
	uid, gid, _, err := d.owner()
	if err != nil {
		return nil, err
	}
	path := d.file(serialFile)
	var before *stamp
	for range 100 {
		now, err := statPath(path)
		if err != nil {
			return nil, err
		}
		if now.zero() || sealed(now, uid, gid) {
			return before, nil
		}
		if before == nil {
			before = &now
		}
		if err := d.step("seal"); err != nil {
			return nil, err
		}
		// puppetserver writes by rename: what is sealed here may be yesterday's file a
		// moment later, so look again.
		if err := d.fenceFile(path, uid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, errors.New("the serial is written faster than it can be sealed")
}

func (d *Dir) fenceFile(path string, owner int) error {
	f, _, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	uid, _, mode := d.sealAs(owner)
	// First the mode: between the two it is the owner's alone.
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
		return fmt.Errorf("changing the mode of the serial: %w", err)
	}
	if uid < 0 {
		now, err := statFile(f)
		if err != nil {
			return err
		}
		data, err := readOpen(f, now, 64)
		if err == nil {
			d.remember(now, data)
		}
		return err
	}
	if err := f.Chown(uid, 0); err != nil {
		return fmt.Errorf("changing the owner of the serial: %w", err)
	}
	return nil
}

// sealAs is what a sealed serial has, in a cadir of owner. A uid of -1 leaves it.
func (d *Dir) sealAs(owner int) (uid, gid int, mode uint32) {
	if os.Geteuid() == 0 && owner != 0 {
		return 0, 0, 0o600
	}
	return -1, -1, 0
}

// Unseal gives the serial back to puppetserver, by a new file with the same content. It
// refuses while a replacement is not finished. Requests that came while it was sealed
// are removed before.
func (d *Dir) Unseal(ctx context.Context) error {
	if err := d.change.take(ctx); err != nil {
		return fmt.Errorf("unsealing the CA: %w", err)
	}
	defer d.change.release()
	if err := d.unseal(); err != nil {
		return fmt.Errorf("unsealing the CA in %q: %w", d.path, err)
	}
	return nil
}

func (d *Dir) unseal() error {
	if err := d.noJournal(); err != nil {
		return err
	}
	uid, gid, _, err := d.owner()
	if err != nil {
		return err
	}
	now, err := statPath(d.file(serialFile))
	if err != nil {
		return err
	}
	if now.zero() {
		return errors.New("there is no serial")
	}
	if !sealed(now, uid, gid) {
		return nil
	}
	d.setFollow(following{}) // whoever follows must not write from here on
	if _, err := d.removeStrays(0); err != nil {
		d.log.Warn("requests that came while the CA was sealed are left", "error", err)
	}
	mode := d.serialMode(now)
	if d.copied() {
		if err := d.noteCopy(mode, false); err != nil {
			return err
		}
	}
	data, now, err := d.readAny(d.file(serialFile), now, 64)
	if err != nil {
		return err
	}
	return d.putSerial(data, now, attributes{uid, gid, mode, now.time()})
}

// readAny reads a file as readRegular does, also a serial that is sealed against the
// very user that this process is. What was sealed by this process is remembered; else,
// after a restart, it is readable for a moment, to that user alone.
func (d *Dir) readAny(path string, s stamp, max int64) ([]byte, stamp, error) {
	if os.Geteuid() == 0 || s.mode&0o400 != 0 || int(s.uid) != os.Geteuid() {
		return readRegular(path, max)
	}
	if data, ok := d.remembered(s); ok {
		return data, s, nil
	}
	if err := os.Chmod(path, 0o400); err != nil {
		return nil, s, err
	}
	f, now, err := openRegular(path)
	if e := os.Chmod(path, fs.FileMode(s.mode)); err == nil {
		err = e
	}
	if err != nil {
		return nil, s, err
	}
	defer f.Close()
	data, err := readOpen(f, now, max)
	if err == nil {
		now, err = statFile(f) // the change of mode changed its time
	}
	if err == nil {
		d.remember(now, data)
	}
	return data, now, err
}

// remember keeps the content of a serial that this process sealed against itself.
func (d *Dir) remember(s stamp, data []byte) {
	if s.mode&0o400 != 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sealedAs, d.sealedData = s, data
}

func (d *Dir) remembered(s stamp) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sealedData, d.sealedAs == s
}
