package cadir

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// AheadError says what a CA has that the camaster's has not. Following the camaster
// would lose it, so it takes an operator's rejoin.
type AheadError struct{ Reason string }

func (e *AheadError) Error() string {
	return "this host's CA is no older state of the camaster's: " + e.Reason +
		"; `puppetsrvctl rejoin` replaces it, and keeps it beside"
}

// descends says why a new set has not grown out of old; renewed, that the CA itself has
// other files though its key is the same.
func descends(old *Set, in *incoming, now time.Time) (renewed bool, err error) {
	next := in.set
	refuse := func(format string, args ...any) (bool, error) {
		return false, &AheadError{fmt.Sprintf(format, args...)}
	}
	if !samePublic(old.tops[keyFile].value, next.tops[keyFile].value) {
		return refuse("it has another key")
	}
	if next.Serial < old.Serial {
		return refuse("its next serial is %04X, and the camaster's %04X", old.Serial, next.Serial)
	}
	if lines := lostLines(old.Data(inventoryFile), next.Data(inventoryFile)); len(lines) > 0 {
		return refuse("%s it issued that the camaster does not know: %s", certificates(len(lines)), some(lines))
	}
	// Cleaned certificates stay in the inventory.
	if unknown := notIn(next.Data(inventoryFile), in.cleaned); len(unknown) > 0 {
		return refuse("%s the camaster has no trace of: %s", certificates(len(unknown)), some(unknown))
	}
	was, is := old.tops[crlFile].value.(*crls), next.tops[crlFile].value.(*crls)
	if lost := is.lost(was, expiry(old), now); len(lost) > 0 {
		numbers := make([]string, len(lost))
		for i, n := range lost {
			numbers[i] = fmt.Sprintf("%04X", n)
		}
		return refuse("%s it revoked that the camaster has not: %s", certificates(len(lost)), some(numbers))
	}
	for _, t := range tops {
		a, b := old.tops[t.name], next.tops[t.name]
		if t.ca && (a == nil) != (b == nil) || t.ca && a != nil && a.sum != b.sum {
			renewed = true
		}
	}
	return renewed, nil
}

func certificates(n int) string {
	if n == 1 {
		return "there is 1 certificate that"
	}
	return fmt.Sprintf("there are %d certificates that", n)
}

// some is the first few of a list.
func some(list []string) string {
	const few = 5
	if len(list) > few {
		return strings.Join(list[:few], ", ") + " ..."
	}
	return strings.Join(list, ", ")
}

// lostLines returns what of an inventory another one has not, as "0xSERIAL /SUBJECT".
// Inventories grow at their end; one that was put in another order loses nothing.
func lostLines(old, next []byte) (lost []string) {
	if bytes.HasPrefix(next, old) {
		return nil
	}
	known := make(map[string]struct{})
	for line := range bytes.Lines(next) {
		known[string(bytes.TrimSpace(line))] = struct{}{}
	}
	for line := range bytes.Lines(old) {
		line = bytes.TrimSpace(line)
		if _, ok := known[string(line)]; ok || len(line) == 0 || line[0] == '#' {
			continue
		}
		fields := strings.Fields(string(line))
		lost = append(lost, fields[0]+" "+fields[len(fields)-1])
	}
	return lost
}

// notIn returns which serials an inventory does not have.
func notIn(data []byte, serials []uint64) (unknown []string) {
	wanted := make(map[uint64]bool, len(serials))
	for _, n := range serials {
		wanted[n] = n != 0 // no counter's are in no order
	}
	if len(wanted) > 0 {
		for line := range bytes.Lines(data) {
			if n, err := inventoryLine(bytes.TrimSpace(line)); err == nil {
				delete(wanted, n)
			}
		}
	}
	for _, n := range serials {
		if wanted[n] {
			unknown = append(unknown, fmt.Sprintf("%04X", n))
		}
	}
	return unknown
}

// expiry says whether a serial's certificate had expired, as the inventory of a set
// knows. One that it does not know has not.
func expiry(s *Set) func(*big.Int, time.Time) bool {
	var ends map[string]time.Time // made when it is asked for the first time
	return func(serial *big.Int, now time.Time) bool {
		if ends == nil {
			ends = make(map[string]time.Time)
			for line := range bytes.Lines(s.Data(inventoryFile)) {
				fields := bytes.Fields(line)
				if len(fields) < 4 {
					continue
				}
				n, ok := new(big.Int).SetString(strings.TrimPrefix(string(fields[0]), "0x"), 16)
				if end, err := time.Parse("2006-01-02T15:04:05", string(fields[2][:min(19, len(fields[2]))])); ok && err == nil {
					ends[string(n.Bytes())] = end
				}
			}
		}
		end, ok := ends[string(serial.Bytes())]
		return ok && end.Before(now)
	}
}
