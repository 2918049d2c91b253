"""Every field of a configuration, explained once; other configs start here and change some.

The values are those of `cifar10_bn`. This tree is also the schema: which fields exist and their
types. What values are possible is checked when a config is loaded (`lpw_jax.config.validate`).
Epochs count from 1, and every duration is in epochs.
"""

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the complete default configuration.

    Args:
      variant: 'fast', for accelerators: computes in bfloat16 and evaluates larger batches; files of
        published experiments pass it on ('configs/cifar10_bn.py:fast').

    Raises:
      ValueError: there is no such variant.
    """
    config = ml_collections.ConfigDict(
        dict(
            # Source of all randomness: initialisation, order, augmentation, noise. 0 to 2**32 - 1.
            seed=0,
            model=dict(
                # Architecture: 'wide_resnet' (pre-activation, widths 16, 16w, 32w, 64w), or that of
                # torchvision: 'resnet50', 'resnet152', 'densenet161'; 'lstm', of texts; or
                # 'package.module:function',
                # which gives a flax module, linen or nnx (lpw_jax.models.own says how it is
                # called). It is looked for in the current directory, too, and gets `depth` and
                # `width` if it takes them.
                name="wide_resnet",
                # Of wide_resnet: layers in depth, 6n + 4 with n >= 1 blocks in each group.
                depth=28,
                # Of wide_resnet: widening factor w, >= 1. Of lstm: units.
                width=10,
                # Of lstm: size of a byte's embedding, >= 1.
                embedding=190,
                # Weights to start from: a file of torchvision's (.pth, which needs torch, or
                # .safetensors) or of lpw_jax.torch_import, or 'imagenet1k_v1', which fetches
                # torchvision's; '' = random ones. Of torchvision's networks only.
                pretrained="",
                # Of a file with several state dicts the one to start from, by what its names begin
                # with ('model_ema'; '.' = the one that is in no other); '' = there is only one.
                pretrained_key="",
            ),
            data=dict(
                # In-distribution data: 'cifar10', 'cifar100', 'digits' (scikit-learn's, 32x32),
                # 'imagenet2012', or data of one's own:
                # - any image classification set of tensorflow-datasets ('mnist', 'emnist/letters'),
                #   prepared in `dir` or downloaded; its test set is the split 'test' or, without
                #   one, 'validation'. Up to 4 GiB of pixels are kept in memory; larger ones are
                #   streamed with random crops, as imagenet2012 is.
                # - 'image_folder': images in dir/train/CLASS and dir/test/CLASS (or dir/val/CLASS)
                #   (lpw_jax.data.folders says what counts as one).
                # - 'package.module:function' (lpw_jax.data.own says what it takes and gives).
                # Or a text for lstm, of which the last 5 % are for the test and 5 % before them for
                # validation: 'python_sources' (the standard library of the Python that runs this),
                # 'enwik8' (in manual_dir), 'text' (in dir).
                name="cifar10",
                # Folder of prepared tensorflow-datasets data, or one of a set in it; '' = tfds' own
                # default folder. Of image_folder: its folder. Of text: a file, or a folder with
                # nothing but its files.
                dir="",
                # Folder with the out-of-distribution archives (LSUN, TIN, SVHN); '' = none.
                ood_dir="",
                # True: a missing out-of-distribution set is an error, not a warning.
                require_ood=False,
                # Remark shown with every result; '' = taken from the dataset's own description.
                note="",
                # Images held out from training: the last n training images. 0 = none.
                validation_examples=0,
                # Means and standard deviations of channels that images are normalised with, on the
                # scale 0 to 1; () = published ones, or for data of one's own those of the training
                # images (streamed: of 10,000), which are kept in results.json.
                mean=(),
                std=(),
                # Side in pixels of what the network sees, not of cifar10, cifar100 and digits. Of
                # imagenet2012 and streamed sets training images are random crops (8 to 100 % of
                # the area, ratio 3/4 to 4/3) resized to it, test images central crops. Sets in
                # memory are resized once (shorter side, then the central square); 0 = as they
                # are. For imagenet2012 a multiple of 32.
                image_size=224,
                # Of texts: bytes in a sequence, >= 1. Training goes back through so many steps, and
                # carries the state on to the next minibatch; train.batch_size counts sequences.
                sequence_length=100,
                # Of texts: bytes that an evaluation reads before each sequence, >= 0.
                context=100,
                # Of texts: take only so many bytes, the first ones; 0 = all.
                num_bytes=0,
                # Of enwik8: folder with enwik8 or enwik8.zip. Of imagenet2012, like the rest of
                # this section, and of streamed sets, all but the first: folder with the ILSVRC2012
                # tars, if it is not prepared in `dir`; '' = downloads/manual in `dir`.
                manual_dir="",
                # Shorter side to which test images are resized before the crop, >= image_size.
                resize=256,
                # True: images that cannot be decoded are counted and skipped (of streamed sets in
                # training the next of the minibatch takes the place), False: they are an error. Of
                # image_folder, too.
                skip_corrupt=False,
            ),
            # Rates and decays here are those of the shared weights, and before the release those
            # of all weights.
            train=dict(
                # Epochs in all, tied and late-phase together, >= 1.
                epochs=200,
                # Images in one member's minibatch, over all devices.
                batch_size=128,
                # Microbatches of a minibatch, computed one after the other: each has its own
                # batch-norm statistics, their gradients are summed, and learning rates are divided
                # by their number. Their size must be divisible by the number of devices.
                num_microbatches=1,
                # Rate before the schedule lowers it, > 0.
                learning_rate=0.1,
                # Factor of rates by epoch, constant within each. With i = e - 1 in epoch e:
                # - 'annealing': 1 for i <= anneal_start, linear in i down to
                #   end_learning_rate / learning_rate at i = anneal_end, and that afterwards. A step
                #   after epoch e is anneal_start = e - 1 and anneal_end = e.
                # - 'cosine': the same, along half a cosine between anneal_start and anneal_end.
                # - 'multistep': milestone_factor ** (number of milestones <= i).
                schedule="annealing",
                # Of annealing and cosine: the last rate, >= 0.
                end_learning_rate=0.001,
                # Of annealing and cosine: epochs, 0 <= anneal_start < anneal_end.
                anneal_start=100,
                anneal_end=180,
                # Of multistep: epochs >= 0, increasing, and a factor > 0.
                milestones=(60, 120, 160),
                milestone_factor=0.2,
                # The first n epochs multiply the factor by e / (n + 1): a linear warm-up. 0 = off.
                warmup_epochs=0,
                # From the epoch after this one on shared weights do not move (their rate is 0),
                # members do; the shared optimiser's momentum goes on. -1 = never, otherwise
                # late_phase.release_epoch to train.epochs - 1.
                freeze_epoch=-1,
                # What trains shared, tied and members' weights; its rates and decays are those of
                # the epoch. All rules are PyTorch's:
                # - 'sgd'.
                # - 'adam': beta 0.9 and 0.999, eps 1e-8, L2 penalty in the gradient (not AdamW).
                # - 'adamw': the same, but weights decay by themselves, by rate * decay.
                # - 'package.module:function', such as 'optax:lion': a function of learning_rate
                #   and, unless all decays are 0, weight_decay, that gives an optax transformation.
                #   It is called in every compiled update, with the epoch's rates as traced scalars.
                optimizer="sgd",
                # L2 penalty on every weight, added to the gradient before momentum. >= 0.
                weight_decay=5e-4,
                # Of sgd: momentum, 0 <= momentum < 1.
                momentum=0.9,
                # Of sgd: Nesterov's momentum (needs momentum > 0).
                nesterov=True,
                # Black pixels padded on every side before the random crop to their size; 0 = no
                # crop.
                # For imagenet2012 and streamed sets, with crops of data.image_size, this and cutout
                # must be 0.
                crop_padding=4,
                # Random horizontal flips.
                flip=True,
                # Side in pixels of the one square set to 0 in every image, 0 (off) to 32.
                cutout=0,
                # Random erasing: probability, 0 (off) to 1, that after normalisation a rectangle of
                # 2 to 33 % of the area, height / width 0.3 to 3.3, is set to 0 (published code:
                # 0.5). Only for data sets in memory, as cutout.
                random_erasing=0.0,
                # Type of convolutions and activations: 'float32', 'bfloat16' or 'float64'. Weights,
                # statistics, losses and optimisers are float32 at least.
                compute_dtype="float32",
                # Precision of float32 products, in JAX's names: 'default' (fastest: TF32 on GPUs,
                # one bfloat16 pass on TPUs), 'high' (TF32; three bfloat16 passes), 'highest'
                # (float32; six bfloat16 passes).
                matmul_precision="highest",
                # What the backward pass computes anew instead of storing it, to need less memory:
                # 'none', or 'batch_norm', which is batch norm and ReLU inside of the networks'
                # blocks. Changes no result beyond rounding.
                remat="none",
                # A loss that is infinite or not a number: 'stop' ends the run at the end of the
                # epoch or before the next checkpoint, 'warn' goes on and says so.
                on_nonfinite="stop",
            ),
            # Rates and decays here are those of the members, from the release on.
            late_phase=dict(
                # Members K, >= 1.
                num_members=10,
                # Members are made at the end of this epoch; 0 = from the start, -1 = never. At
                # most train.epochs - 1.
                release_epoch=120,
                # Noise at the release: its standard deviation over the rms of the leaf, >= 0.
                sigma=0.0,
                # True: at the release each member's head starts anew, He normal and bias 0, with
                # numbers of its own. The whole head must be late-phase.
                reinitialize_head=False,
                # Steps with a zero gradient (weight decay and momentum go on). 'reference': in each
                # cycle members 1 to K - 1 first take one, as in the published CIFAR code.
                # 'every_minibatch': all other members take one at each member's step, as in the
                # published ImageNet code. 'none': Algorithm 1 of the paper (and the ImageNet code's
                # per_spec_optim).
                coasting="reference",
                # False: each minibatch after the release goes to a member drawn at random, and the
                # shared weights are updated after every one; nothing coasts. What metrics.jsonl
                # lists by member is then by place in the cycle.
                inner_training=True,
                # True: in each cycle all members see one minibatch, augmented alike, as in
                # BatchEnsemble; an epoch then takes K times as long. The shared gradient stays the
                # sum, which shared_grad_scale = 1 / K makes the mean. Members that start equal stay
                # so, but for dropout: sigma or reinitialize_head sets them apart.
                same_minibatch=False,
                # Rate of the members before the schedule's factor, >= 0.
                learning_rate=0.1,
                # Whether the members' rate has the schedule's factor, too.
                anneal=True,
                # Whether the shared rate is divided by num_members after the release.
                divide_shared_rate=False,
                # L2 penalty on the members' weights, >= 0.
                weight_decay=5e-4,
                # Which weights are late-phase: regular expressions, each matched against the whole
                # '/'-joined path of a parameter ('group0_block0/bn1/scale', 'head/kernel').
                # Default: every batch norm's scale and shift, and the head. Where batch norm is not
                # late-phase, its running statistics are one pair, followed by all members in turn.
                patterns=("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)"),
                # What members have of further weights: 'copies' (nothing), 'rank_one' (factors on
                # inputs and outputs), 'low_rank' (an addition of `rank`), 'templates' (coefficients
                # of shared templates, which layers of a wide_resnet are then sums of).
                kind="copies",
                # Of 'rank_one' and 'low_rank': which weights, as in `patterns`.
                kind_patterns=("(?!head/).*kernel",),
                # Of 'low_rank': rank of the addition, >= 1.
                rank=4,
                # Of 'templates': layers of which groups, 'input_layer', 'adapter' (each group's
                # first block), 'conv_block' (the other blocks) and 'head'.
                template_groups=("adapter", "conv_block"),
                # Of 'templates': in which of these groups coefficients are late-phase; in others
                # they are shared.
                late_template_groups=("input_layer", "adapter", "conv_block", "head"),
                # Of 'templates': rate of the coefficients before the release, and of shared ones
                # after it, annealed as the shared rate, and their decay; >= 0.
                tied_learning_rate=0.1,
                tied_weight_decay=0.0,
                # How a step goes over members, results alike: 'vmap' (one large batch), 'scan' (one
                # after the other, with the memory of one), 'unroll' (so with K copies of the
                # program), or 'auto': vmap on accelerators with enough memory, otherwise scan.
                member_mode="auto",
                # Gamma: scales the shared gradient, summed over the K minibatches. > 0. Networks
                # without batch norm may need 1 / K, the mean: a sum makes too long a step for them.
                shared_grad_scale=1.0,
            ),
            swa=dict(
                # Stochastic weight averaging takes the weights at the end of this epoch and of
                # every later one, after the release if there is one. 0 = off.
                start_epoch=0,
                # 0 = the mean of those weights (SWA). Otherwise >= 0 and < 1: an exponential moving
                # average instead, decay * average + (1 - decay) * weights after every cycle, from
                # the first one of start_epoch on.
                decay=0.0,
            ),
            # What runs where; changes no result beyond rounding.
            parallel=dict(
                # Number of devices there must be, over all hosts; 0 = use what is there.
                num_devices=0,
                # Kind of devices there must be: 'cpu', 'gpu' or 'tpu'; '' = use what is there.
                platform="",
                # What of JAX drives them: 'pmap', which JAX only maintains, or 'shard_map', its
                # successor. Results are the same, bit for bit.
                backend="pmap",
                # How devices share the work after the release (before it: 'data'). 'data': each
                # takes a part of every minibatch. 'members': each takes whole members, so their
                # number must divide num_members. 'groups' (of shard_map): as many equal groups of
                # devices as can have the same number of members each; the devices of a group take
                # a part of its members' minibatches. 'auto': 'members' where possible, otherwise
                # 'groups' with shard_map, 'data' with pmap.
                layout="auto",
            ),
            checkpoint=dict(
                # A checkpoint at the end of every n-th epoch; 0 = none.
                every_epochs=5,
                # And whenever the newest is older than this, between cycles, in minutes; 0 = never.
                # Several hosts compare their clocks every 50 cycles.
                every_minutes=15.0,
                # How many of the newest are kept, >= 1.
                keep=2,
            ),
            evaluate=dict(
                # Images in one evaluation batch, over all devices; changes no result. >= 1.
                batch_size=512,
                # The test set is also evaluated at the end of every n-th epoch and of the last one,
                # with SWA both the current weights and, on a copy whose batch-norm statistics take
                # one more pass of the training set, their averages; 0 = only after training.
                every_epochs=0,
                # Whether predictions/ holds every member's logits, beside those of the collapsed
                # network and the ensemble.
                member_predictions=True,
            ),
        ),
        # Types are checked on loading, where a message can name the field and list all mistakes.
        type_safe=False,
    )
    if variant == "fast":
        config.train.compute_dtype = "bfloat16"
        config.evaluate.batch_size = 2048
    elif variant:
        raise ValueError(f"variant {variant!r}: must be 'fast' or not given")
    return config
