"""After the import swap: train the model, and score patients on Ray Data, in processes that load it once.

python on_ray_data.py
"""

from tasks import predict, train

import raycelery.batch

BATCH = 10


def main():
    train.delay(penalty=0.5).get(timeout=300)
    scored = raycelery.batch.map(predict, ((patient,) for patient in range(40)), batch_size=BATCH)
    probabilities = [row["result"] for row in scored.iter_rows()]
    for first in range(0, len(probabilities), BATCH):
        print(f"patients {first:3}...", *(f"{one:.3f}" for one in probabilities[first : first + BATCH]))


if __name__ == "__main__":
    main()
