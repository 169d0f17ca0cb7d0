package gossip

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

// MaxKeys is how many keys a ring may have.
const MaxKeys = 8

// makeKey is told to whoever has no key, or a bad one.
const makeKey = "make a key with: head -c 32 /dev/urandom | base64"

// Key is what may be told of a key.
type Key struct {
	ID      string // the first 8 hexadecimal digits of the key's SHA-256
	Primary bool   // encrypts what this member sends
}

// KeyRing has the keys that encrypt the gossip. Each decrypts what arrives, the
// primary one encrypts what is sent. It may be changed while a pool uses it: a
// new key is added on all members, then used on all, then the old one removed.
// All methods may be called concurrently.
type KeyRing struct {
	path string              // "": in memory only
	ring *memberlist.Keyring // never replaced: a pool holds it

	mu        sync.Mutex
	keys      [][]byte // the primary first
	writeFile func(path string, data []byte) error
}

// Generate returns a new key of 32 bytes.
func Generate() ([]byte, error) {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}

// NewKeyRing returns a ring that is kept in memory only; the first key is the
// primary one.
func NewKeyRing(keys ...[]byte) (*KeyRing, error) {
	k := &KeyRing{writeFile: store.WriteFile}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
		if k.index(keyID(key)) < 0 {
			k.keys = append(k.keys, bytes.Clone(key))
		}
	}
	if len(k.keys) > MaxKeys {
		return nil, fmt.Errorf("%d keys, the limit is %d", len(k.keys), MaxKeys)
	}
	ring, err := memberlist.NewKeyring(nil, nil)
	if err != nil {
		return nil, err
	}
	for _, key := range k.keys {
		if err := ring.AddKey(key); err != nil {
			return nil, err
		}
	}
	k.ring = ring
	return k, nil
}

// OpenKeyRing reads a key file: one key a line in base64, of 16, 24 or 32 bytes,
// 1 to MaxKeys of them, the first one encrypts; lines that begin with # are
// comments. Changes are written to the same file, without its comments.
func OpenKeyRing(path string) (*KeyRing, error) {
	// A rename would replace a symbolic link, not the file.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	keys, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	k, err := NewKeyRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	k.path = path
	return k, nil
}

func readKeys(path string) ([][]byte, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file: %w; %s", err, makeKey)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if fi.Mode().Perm()&0o026 != 0 {
		return nil, fmt.Errorf("key file %s has mode %04o and can be read or changed by others: chmod g-w,o-rwx %[1]s", path, fi.Mode().Perm())
	}
	data, err := store.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return parseKeys(path, data)
}

// parseKeys reads the content of a key file. No error repeats any of it.
func parseKeys(path string, data []byte) ([][]byte, error) {
	var keys [][]byte
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("key file %s, line %d: no base64 of a key; %s", path, n, makeKey)
		}
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("key file %s, line %d: %w", path, n, err)
		}
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return nil, fmt.Errorf("key file %s, line %d: the key stands there twice; remove one", path, n)
		}
		if len(keys) == MaxKeys {
			return nil, fmt.Errorf("key file %s, line %d: more than %d keys; remove those no longer in use", path, n, MaxKeys)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("key file %s: no key in it; %s", path, makeKey)
	}
	return keys, nil
}

func checkKey(key []byte) error {
	switch len(key) {
	case 16, 24, 32:
		return nil
	}
	return fmt.Errorf("the key has %d bytes, it must have 16, 24 or 32; %s", len(key), makeKey)
}

func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// empty reports whether nothing would be encrypted.
func (k *KeyRing) empty() bool { return k == nil || len(k.Keys()) == 0 }

// Keys returns the keys' identities, the primary one first.
func (k *KeyRing) Keys() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := make([]Key, len(k.keys))
	for i, key := range k.keys {
		keys[i] = Key{ID: keyID(key), Primary: i == 0}
	}
	return keys
}

// Add makes what is encrypted with key readable. It is durable when it returns
// nil; with an error nothing has changed. To add a key that is there succeeds.
// The first key of an empty ring is its primary one.
func (k *KeyRing) Add(key []byte) (id string, err error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id = keyID(key)
	if i := k.index(id); i >= 0 {
		if !bytes.Equal(k.keys[i], key) {
			return "", fmt.Errorf("another key on the ring has the same identity %s; make a new one", id)
		}
		return id, nil
	}
	if len(k.keys) == 0 {
		// A pool on an empty ring runs unencrypted; it would be cut off from
		// the others by its own first key.
		return "", errors.New("the ring is empty: encryption is turned on by a key file and a restart")
	}
	if len(k.keys) >= MaxKeys {
		return "", fmt.Errorf("the ring has %d keys, which is the limit; remove one that is no longer in use", len(k.keys))
	}
	key = bytes.Clone(key)
	next := append(slices.Clone(k.keys), key)
	if err := k.write(next); err != nil {
		return "", err
	}
	if err := k.ring.AddKey(key); err != nil {
		return "", err
	}
	k.keys = next
	return id, nil
}

// Use makes a key of the ring the one that encrypts. All members should have it
// first.
func (k *KeyRing) Use(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.index(id)
	if i < 0 {
		return fmt.Errorf("no key %q on the ring; it has %s", id, strings.Join(k.ids(), ", "))
	}
	if i == 0 {
		return nil
	}
	key := k.keys[i]
	next := append([][]byte{key}, slices.Delete(slices.Clone(k.keys), i, i+1)...)
	if err := k.write(next); err != nil {
		return err
	}
	if err := k.ring.UseKey(key); err != nil {
		return err
	}
	k.keys = next
	return nil
}

// Remove takes a key off the ring, but not the primary one. To remove one that is
// not there succeeds.
func (k *KeyRing) Remove(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.index(id)
	if i < 0 {
		return nil
	}
	if i == 0 {
		return fmt.Errorf("key %s encrypts what this member sends; use another one first", id)
	}
	key := k.keys[i]
	next := slices.Delete(slices.Clone(k.keys), i, i+1)
	if err := k.write(next); err != nil {
		return err
	}
	if err := k.drop(key); err != nil {
		return err
	}
	k.keys = next
	return nil
}

// drop removes key from memberlist's ring. Its RemoveKey shifts the keys behind
// it in place, in a slice that a decryption may be reading; only for the last one
// there is nothing to shift. So key is made the last one first, by using those
// behind it and then the primary again. What is sent in between is encrypted with
// another key of the ring, which at worst costs a packet.
func (k *KeyRing) drop(key []byte) error {
	order := k.ring.GetKeys()
	at := slices.IndexFunc(order, func(other []byte) bool { return bytes.Equal(other, key) })
	if at > 0 && at < len(order)-1 {
		for _, other := range slices.Backward(order[at+1:]) {
			if err := k.ring.UseKey(other); err != nil {
				return err
			}
		}
		if err := k.ring.UseKey(order[0]); err != nil {
			return err
		}
	}
	return k.ring.RemoveKey(key)
}

func (k *KeyRing) index(id string) int {
	return slices.IndexFunc(k.keys, func(key []byte) bool { return keyID(key) == id })
}

func (k *KeyRing) ids() []string {
	ids := make([]string, len(k.keys))
	for i, key := range k.keys {
		ids[i] = keyID(key)
	}
	return ids
}

// write makes keys the content of the file. A file that somebody has changed or
// damaged meanwhile is not overwritten.
func (k *KeyRing) write(keys [][]byte) error {
	if k.path == "" {
		return nil
	}
	there, err := readKeys(k.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not changing the key ring: %w", err)
	}
	if err == nil && !slices.EqualFunc(there, k.keys, bytes.Equal) && !slices.EqualFunc(there, keys, bytes.Equal) {
		return fmt.Errorf("not changing the key ring: key file %s was changed since it was read; restart to read it again", k.path)
	}
	var text strings.Builder
	text.WriteString("# Keys of the gossip, one a line; the first one encrypts. Written by puppetsrv.\n")
	for _, key := range keys {
		text.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	}
	return k.writeFile(k.path, []byte(text.String()))
}
