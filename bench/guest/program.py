# What a byte-code interpreter in C does all day: objects, attributes, dicts, lists, strings, calls, exceptions.
class Vector:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)


def objects(count):
    total = Vector(0, 0)
    for i in range(count):
        total = total + Vector(i, i & 7)
    return total.x * 31 + total.y


def words(count):
    seen = {}
    for i in range(count):
        word = "w%d" % (i * 7919 % 1009)
        seen[word] = seen.get(word, 0) + len(word)
    return sum(len(key) * value for key, value in sorted(seen.items()))


def queens(size, row=0, columns=0, left=0, right=0):
    if row == size:
        return 1
    found = 0
    free = ((1 << size) - 1) & ~(columns | left | right)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(size, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


def sieve(count):
    flags = [True] * count
    for i in range(2, int(count ** 0.5) + 1):
        if flags[i]:
            for j in range(i * i, count, i):
                flags[j] = False
    return sum(flags)


def failures(count):
    caught = 0
    for i in range(count):
        try:
            if i % 3 == 0:
                raise KeyError(i)
            caught += [1, 2][i % 4]
        except (KeyError, IndexError) as error:
            caught += len(error.args)
    return caught


for _ in range(2):
    print(objects(40000), words(40000), queens(7), sieve(100000), failures(40000))
