"""Slow references for identification and retrieval: sorted Python lists."""

import itertools


def ranking(row, ids, person, skip=None):
  """Ids by falling score; of equal scores those of other people first."""
  entries = [
    (-score, owner == person, owner)
    for column, (score, owner) in enumerate(zip(row, ids, strict=True))
    if column != skip
  ]
  return [owner for _, _, owner in sorted(entries, key=lambda e: e[:2])]


def person_scores(row, gallery_ids):
  """Best score of each person."""
  best = {}
  for score, owner in zip(row, gallery_ids, strict=True):
    best[owner] = max(score, best.get(owner, score))
  return best


def own_rank(row, gallery_ids, person):
  """Place of a person among people, or None if not enrolled."""
  best = person_scores(row, gallery_ids)
  if person not in best:
    return None
  return ranking(best.values(), best.keys(), person).index(person) + 1


def rank_k(similarity, probe_ids, gallery_ids, k):
  right = 0
  for row, person in zip(similarity, probe_ids, strict=True):
    if own_rank(row, gallery_ids, person) <= k:
      right += 1
  return right / len(probe_ids)


def open_set_rates(similarity, probe_ids, gallery_ids, threshold, rank=1):
  """(FPIR, FNIR), search by search."""
  mated = missed = strangers = alarms = 0
  for row, person in zip(similarity, probe_ids, strict=True):
    best = person_scores(row, gallery_ids)
    place = own_rank(row, gallery_ids, person)
    if place is None:
      strangers += 1
      if max(best.values()) >= threshold:
        alarms += 1
    else:
      mated += 1
      if place > rank or best[person] < threshold:
        missed += 1
  return alarms / strangers, missed / mated


def open_set_curve(similarity, probe_ids, gallery_ids, rank=1):
  """[threshold, FPIR, FNIR] at +inf and at each score that is used."""
  used = set()
  for row, person in zip(similarity, probe_ids, strict=True):
    best = person_scores(row, gallery_ids)
    place = own_rank(row, gallery_ids, person)
    if place is None:
      used.add(max(best.values()))
    elif place <= rank:
      used.add(best[person])
  return [
    (t, *open_set_rates(similarity, probe_ids, gallery_ids, t, rank))
    for t in [float("inf"), *sorted(used, reverse=True)]
  ]


def fnir_at_fpir(similarity, probe_ids, gallery_ids, target, rank=1):
  """(FNIR, threshold) of the last point within the target; None above all."""
  found = (1.0, None)
  for t, fpir, fnir in open_set_curve(similarity, probe_ids, gallery_ids, rank)[
    1:
  ]:
    if fpir <= target:
      found = (fnir, t)
  return found


def retrieval(similarity, query_ids, reference_ids=None):
  """(MAP@R, R-precision, precision at 1), query by query."""
  sums, queries = [0.0, 0.0, 0.0], 0
  is_same_set = reference_ids is None
  reference_ids = query_ids if is_same_set else reference_ids
  for row, person in enumerate(query_ids):
    skip = row if is_same_set else None
    owners = ranking(similarity[row], reference_ids, person, skip)
    num_own = sum(1 for owner in owners if owner == person)
    if num_own == 0:
      continue
    queries += 1
    hits, precisions = 0, 0.0
    for place, owner in enumerate(owners[:num_own], start=1):
      if owner == person:
        hits += 1
        precisions += hits / place
    sums[0] += precisions / num_own
    sums[1] += hits / num_own
    sums[2] += owners[0] == person
  return tuple(total / queries for total in sums)


def expected_cmc(similarity, identity_ids, ways):
  """Share of probes up to each rank, over every choice of references."""
  members = {}
  for row, person in enumerate(identity_ids):
    members.setdefault(person, []).append(row)
  counts = [0.0] * ways
  for chosen in itertools.combinations(sorted(members), ways):
    choices = list(itertools.product(*(members[p] for p in chosen)))
    for references in choices:
      owner = dict(zip(references, chosen, strict=True))
      for probe, person in enumerate(identity_ids):
        if person in chosen and probe not in owner:
          row = [similarity[probe][r] for r in references]
          rank = ranking(row, chosen, person).index(person)
          # Each draw of people is equally likely, and then each choice.
          counts[rank] += 1 / len(choices)
  total = sum(counts)
  return [sum(counts[: k + 1]) / total for k in range(ways)]


def ranks_for_references(similarity, identity_ids, references):
  """Rank of each probe's person, for references given as person -> row."""
  ranks = []
  for probe, person in enumerate(identity_ids):
    if person not in references or references[person] == probe:
      continue
    rank = 1
    for other, row in references.items():
      if other != person:
        own_score = similarity[probe][references[person]]
        if similarity[probe][row] >= own_score:
          rank += 1
    ranks.append(rank)
  return ranks
