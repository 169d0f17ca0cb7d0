package settings

// closest returns the candidate that word is probably a slip of, "" if there is none.
func closest(word string, candidates []string) string {
	if len(word) > 40 {
		return ""
	}
	best, least := "", 3
	for _, c := range candidates {
		// More than half of a short word is no slip.
		if d := distance(word, c); d < least && 2*d <= max(len(word), len(c)) {
			best, least = c, d
		}
	}
	return best
}

// distance is Levenshtein's: letters to be put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
