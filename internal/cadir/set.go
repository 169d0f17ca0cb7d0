package cadir

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// Sum is the SHA-256 of a file's content. As text it is hexadecimal.
type Sum [sha256.Size]byte

// String is s in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText is String.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText is the way back.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return fmt.Errorf("a SHA-256 of %d characters: it has %d", len(text), hex.EncodedLen(len(s)))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// File is one of a set.
type File struct {
	Path string    `json:"path"` // relative to the cadir, with slashes
	Size int64     `json:"size"`
	Mode uint32    `json:"mode"` // permission bits; of a sealed serial those that it has unsealed
	Time time.Time `json:"time"` // of its last change
	Sum  Sum       `json:"sha256"`
}

// Set is what a cadir held, verified as one. It is never changed.
type Set struct {
	Files   []File // sorted by path
	Hash    string // of all paths and contents: equal hashes are equal sets
	Serial  uint64 // the next to be issued
	Highest uint64 // the greatest in inventory and signed/, below Serial
	Signed  int    // certificates in signed/

	tops map[string]*content // of the files in the cadir itself
}

// Data returns a file's content that the set holds in memory, which is all but the
// certificates in signed/; nil if it does not. It must not be changed.
func (s *Set) Data(name string) []byte {
	if c := s.tops[name]; c != nil {
		return c.data
	}
	return nil
}

// File returns a set's file.
func (s *Set) File(path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(s.Files, path, func(f File, path string) int { return strings.Compare(f.Path, path) })
	if !ok {
		return File{}, false
	}
	return s.Files[i], true
}

// HashOf is the hash of a set of files that are sorted by path. Owners, modes and times
// are not in it: a seal changes no set, and a copy is equal.
func HashOf(files []File) string {
	h := sha256.New()
	var line []byte
	for _, f := range files {
		line = append(append(append(line[:0], f.Path...), 0), f.Sum[:]...)
		h.Write(line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// contents are those of a set that is to be verified.
type contents struct {
	tops   map[string]*content
	signed iter.Seq2[string, *content] // by path; nil: there is no such directory
	count  int                         // of those
}

// verify says what a set is, but for its files, or why it is none.
func (c contents) verify() (*Set, error) {
	var missing []string
	for _, t := range tops {
		if t.required && c.tops[t.name] == nil {
			missing = append(missing, t.name)
		}
	}
	if c.signed == nil {
		missing = append(missing, signedDir+"/")
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, &MissingError{missing, len(c.tops) == 0 && c.count == 0}
	}
	for _, t := range tops {
		if f := c.tops[t.name]; f != nil && f.err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, f.err)
		}
	}
	bundle := c.tops[certFile].value.(*bundle)
	if err := bundle.pairs(c.tops[keyFile].value); err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	if pub := c.tops[pubFile]; pub != nil {
		if err := bundle.pairs(pub.value); err != nil {
			return nil, fmt.Errorf("%s: %w", pubFile, err)
		}
	}
	for _, name := range []string{crlFile, infraCRLFile} {
		if f := c.tops[name]; f != nil {
			if err := f.value.(*crls).signedBy(bundle); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if signer := bundle.signer(c.tops[keyFile].value); c.tops[crlFile].value.(*crls).of(signer) == nil {
		return nil, fmt.Errorf("%s: it has no list of %q, which signs", crlFile, signer.Subject.CommonName)
	}
	inventory := c.tops[inventoryFile].value.(inventory)
	s := &Set{Serial: c.tops[serialFile].value.(uint64), Signed: c.count, Highest: inventory.highest, tops: c.tops}
	if c.count > maxSigned {
		return nil, fmt.Errorf("%s/ has %d certificates: %d are the most", signedDir, c.count, maxSigned)
	}
	bad, first, why := 0, "", error(nil)
	for path, f := range c.signed {
		if f.err != nil {
			if bad++; bad == 1 || path < first {
				first, why = path, f.err
			}
			continue
		}
		s.Highest = max(s.Highest, f.value.(certificate).serial)
	}
	if bad > 0 {
		more := ""
		if bad > 1 {
			more = fmt.Sprintf(" (and %d more)", bad-1)
		}
		return nil, fmt.Errorf("%s: %w%s", first, why, more)
	}
	if s.Serial <= s.Highest {
		return nil, fmt.Errorf("%s: the next one is %04X, and %04X is issued already: a serial must not be issued twice", serialFile, s.Serial, s.Highest)
	}
	return s, nil
}

// MissingError says which files of a set there are not.
type MissingError struct {
	Files []string // sorted
	All   bool     // there is not one file of a CA
}

func (e *MissingError) Error() string {
	if e.All {
		return "there is no CA: " + strings.Join(e.Files, ", ") + " are missing"
	}
	return "incomplete: " + strings.Join(e.Files, ", ") + " missing"
}
