package config

// closest returns the name that differs least from what was written, if it is likely to be meant; else "".
func closest(written string, names []string) (name string) {
	least := min(2, len(written)/3) + 1
	for _, n := range names {
		if d := distance(written, n); d < least {
			name, least = n, d
		}
	}
	return name
}

// distance counts the bytes to be changed, added, removed, or swapped with the next, to make b of a.
func distance(a, b string) int {
	var before, last []int // rows for the first i-2 and i-1 bytes of a
	for i := range len(a) + 1 {
		row := make([]int, len(b)+1)
		for j := range row {
			if i == 0 || j == 0 {
				row[j] = i + j
				continue
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1])
			if a[i-1] != b[j-1] {
				row[j] = min(last[j], row[j-1], last[j-1]) + 1
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					row[j] = min(row[j], before[j-2]+1)
				}
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
