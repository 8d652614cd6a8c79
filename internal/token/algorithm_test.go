package token

import "testing"

func TestAlgorithmsListsAll(t *testing.T) {
	listed := map[string]bool{}
	for _, name := range Algorithms() {
		if _, ok := algorithms[name]; !ok || listed[name] {
			t.Errorf("%s is not one of them, or there twice", name)
		}
		listed[name] = true
	}
	if len(listed) != len(algorithms) {
		t.Errorf("%d of %d are listed", len(listed), len(algorithms))
	}
}
