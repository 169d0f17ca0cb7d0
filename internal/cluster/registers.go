package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// registersFile is the name of the file.
const registersFile = "registers.json"

// kindEntry is what a seal under a register entry is for.
const kindEntry = "register entry"

// Registers are the registers of one directory, in memory and on disk. They outlive a
// cluster that is left and joined anew: there must never be two for one directory.
// Memory is never waited for; the disk has a lock of its own, because it may hang.
// Their methods are safe for concurrent use.
type Registers struct {
	disk    Disk
	current atomic.Pointer[register.State]

	mu           sync.Mutex                   // of what changes current, and of:
	certificates map[[sha256.Size]byte][]byte // DER, by fingerprint
	version      uint64                       // counts what has to go to disk
	written      uint64                       // the version on disk
	damaged      bool
	err          error // why written is behind, or nothing can be written

	writing sync.Mutex // held while the file is written; before mu
}

// registersJSON is the file. A seal in it is the fingerprint of a certificate and
// a signature: certificates are long, and few.
type registersJSON struct {
	Certificates [][]byte        `json:"certificates"` // DER
	Registers    json.RawMessage `json:"registers"`
}

// OpenRegisters reads what a directory has; nil keeps registers in memory, and nothing
// can be written. It always returns usable registers: a damaged file is logged, left
// alone, and nothing is written over it.
func OpenRegisters(disk Disk, log Logger) *Registers {
	r := &Registers{disk: disk, certificates: make(map[[sha256.Size]byte][]byte)}
	r.current.Store(&register.State{})
	if disk == nil {
		r.err = errors.New("no `state` directory is configured")
		return r
	}
	data, err := disk.Read(registersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	if err == nil {
		err = r.decode(data)
	}
	if err != nil {
		r.damaged = true
		r.err = fmt.Errorf("%s cannot be used, and is left as it is: %w; put a good copy in its place, or remove it to learn from the other nodes, and restart", registersFile, err)
		log.Errorf("Registers: %s", r.err)
	}
	return r
}

func (r *Registers) decode(data []byte) error {
	var in registersJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	entries, err := register.DecodeState(in.Registers)
	if err != nil {
		return err
	}
	certificates := make(map[[sha256.Size]byte][]byte)
	for _, der := range in.Certificates {
		certificates[sha256.Sum256(der)] = der
	}
	for _, e := range entries {
		if fingerprint, _, err := splitSeal(e.Seal()); err != nil {
			return err
		} else if certificates[fingerprint] == nil {
			return fmt.Errorf("the certificate under %s %s is missing", e.Key, e.Version)
		}
	}
	s, _, err := register.State{}.Merge(entries...)
	if err != nil {
		return err
	}
	r.certificates = certificates
	r.current.Store(&s)
	return nil
}

func (r *Registers) encode(s *register.State) ([]byte, error) {
	var out registersJSON
	seen := make(map[[sha256.Size]byte]bool)
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := range s.All() {
		fingerprint, _, err := splitSeal(e.Seal())
		if err != nil {
			return nil, err
		}
		if !seen[fingerprint] {
			seen[fingerprint] = true
			out.Certificates = append(out.Certificates, r.certificates[fingerprint])
		}
	}
	var err error
	if out.Registers, err = s.MarshalBinary(); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// splitSeal takes a kept seal apart.
func splitSeal(seal []byte) (fingerprint [sha256.Size]byte, signature []byte, err error) {
	if len(seal) <= len(fingerprint) {
		return fingerprint, nil, errors.New("a register entry without a seal")
	}
	copy(fingerprint[:], seal)
	return fingerprint, seal[len(fingerprint):], nil
}

// keepSeal is s as it is kept with an entry; its certificate has to be remembered
// under the fingerprint.
func keepSeal(s trust.Sealed) []byte {
	fingerprint := sha256.Sum256(s.Certificate)
	return append(fingerprint[:], s.Signature...)
}

func (r *Registers) state() register.State { return *r.current.Load() }

func (r *Registers) problem() (damaged bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damaged, r.err
}

// sealed is an entry with its seal as trust knows it.
func (r *Registers) sealed(e *register.Entry) (trust.Sealed, error) {
	fingerprint, signature, err := splitSeal(e.Seal())
	if err != nil {
		return trust.Sealed{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	der := r.certificates[fingerprint]
	if der == nil {
		return trust.Sealed{}, fmt.Errorf("the certificate under %s %s is missing", e.Key, e.Version)
	}
	return trust.Sealed{Payload: e.Payload(), Certificate: der, Signature: signature}, nil
}

// learn takes entries of others into memory, at once, because answers matter more
// than the disk; save then makes them durable. added are those that were new.
func (r *Registers) learn(entries []register.Entry, certificates [][]byte) (before register.State, added []register.Entry, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, der := range certificates {
		r.certificates[sha256.Sum256(der)] = der
	}
	before = r.state()
	after, added, err := before.Merge(entries...)
	if len(added) > 0 {
		r.current.Store(&after)
		r.version++
	}
	return before, added, err
}

// errGaveUp is returned for a write that nobody waits for any more when its turn
// comes: done late, it would win over what was decided meanwhile.
var errGaveUp = errors.New("the disk was busy for too long, and nothing has changed")

// write makes the entry that propose returns the newest of its key: first on disk,
// then in memory. While propose decides nothing else changes; what is learned while
// the disk works stays, and is then a conflict.
func (r *Registers) write(ctx context.Context, certificate []byte, propose func(register.State) (register.Entry, error)) (before register.State, e register.Entry, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if ctx.Err() != nil {
		return before, e, errGaveUp
	}
	r.mu.Lock()
	if r.damaged || r.disk == nil {
		defer r.mu.Unlock()
		return before, e, r.err
	}
	before, version := r.state(), r.version
	if e, err = propose(before); err != nil {
		r.mu.Unlock()
		return before, e, err
	}
	r.certificates[sha256.Sum256(certificate)] = bytes.Clone(certificate)
	after, added, err := before.Merge(e)
	r.mu.Unlock()
	if err == nil && len(added) != 1 {
		err = fmt.Errorf("register %s: the entry %s is there already", e.Key, e.Version)
	}
	if err != nil {
		return before, e, err
	}
	if err := r.put(&after, version); err != nil {
		// Perhaps only the last step failed and it is on disk. It must not come back
		// from there after it was refused.
		r.mu.Lock()
		r.version++
		r.mu.Unlock()
		return before, e, fmt.Errorf("nothing has changed: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	after, _, err = r.state().Merge(e)
	r.current.Store(&after)
	return before, e, err
}

// reseal replaces seals, with those of the owner of certificate.
func (r *Registers) reseal(certificate []byte, entries []register.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certificates[sha256.Sum256(certificate)] = bytes.Clone(certificate)
	s := r.state()
	for _, e := range entries {
		s = s.Reseal(e)
	}
	r.current.Store(&s)
	r.version++
}

// save returns when memory is on disk, or cannot be.
func (r *Registers) save() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	s, version := r.state(), r.version
	if r.damaged || r.disk == nil || r.written == version {
		defer r.mu.Unlock()
		return r.err
	}
	r.mu.Unlock()
	return r.put(&s, version)
}

// put writes s, which has what version counts, to disk, and remembers how that
// went. The caller holds writing.
func (r *Registers) put(s *register.State, version uint64) error {
	data, err := r.encode(s)
	if err == nil {
		err = r.disk.Write(registersFile, data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.written = version
	}
	return err
}

// Close makes durable what is not yet, for patience, and reports whether nothing is
// being written any more: only then the directory may be given up.
func (r *Registers) Close(patience time.Duration) (idle bool) {
	done := make(chan struct{})
	go func() {
		_ = r.save() // told before
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}
